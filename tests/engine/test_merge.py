"""The merge rule: log-sum-exps of parts give that of the whole, whatever their size and order."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circlet.engine.merge import empty, merge_


def merged(parts: list[Tensor]) -> Tensor:
    """log2 of the sum of 2^values over (anchors, values) parts, each shifted by its own maximum."""
    shift, total = empty(len(parts[0]), parts[0])
    for part in parts:
        top = part.amax(dim=1) if part.shape[1] else torch.zeros(len(part), dtype=part.dtype)
        merge_(shift, total, top, (part - top[:, None]).exp2().sum(dim=1))
    return torch.where(total > 0, shift + total.log2(), -math.inf)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_parts_in_any_order_give_the_whole(seed: int, sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    parts = [400 * torch.randn(3, size, generator=generator, dtype=torch.float64) for size in sizes]
    whole = torch.cat(parts, dim=1)
    expected = (whole * math.log(2)).logsumexp(dim=1) / math.log(2)
    torch.testing.assert_close(merged(parts), expected)
    torch.testing.assert_close(merged(parts[::-1]), expected)


def test_a_small_sum_under_a_large_shift_is_not_taken_for_a_large_one() -> None:
    # 2^100 * 2^-90 is 2^10: a part of 2^-60 that comes later must still count for nothing, one of 2^10 fully.
    shift, total = empty(1, torch.zeros(1))
    merge_(shift, total, torch.tensor([100.0]), torch.tensor([2.0**-90]))
    merge_(shift, total, torch.tensor([10.0]), torch.tensor([1.0]))
    assert (shift + total.log2()).item() == 11
    # The shift says how large the whole is, so that a much larger part can't be lost below it either.
    merge_(shift, total, torch.tensor([140.0]), torch.tensor([2.0**-120]))
    assert math.isclose((shift + total.log2()).item(), math.log2(2**11 + 2**20), rel_tol=1e-6)


def test_nothing_and_nothing_is_nothing() -> None:
    shift, total = empty(2, torch.zeros(1))
    merge_(shift, total, torch.tensor([0.0, 5.0]), torch.zeros(2))
    assert total.tolist() == [0, 0]
    merge_(shift, total, torch.tensor([3.0, 5.0]), torch.tensor([0.0, 1.0]))
    assert torch.where(total > 0, shift + total.log2(), -math.inf).tolist() == [-math.inf, 5]
