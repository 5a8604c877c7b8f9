"""Rows with a gradient move as under torch's optimisers, the others not at all."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

from circlet.references import SparseAdamW, SparseSGD

ROWS, DIM = 7, 3
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}
ADAMW = {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.05}
PAIRS: list[Any] = [
    pytest.param(lambda p: SparseSGD(p, **SGD), lambda p: torch.optim.SGD(p, **SGD), id="SGD"),
    pytest.param(lambda p: SparseSGD(p, 0.1), lambda p: torch.optim.SGD(p, 0.1), id="plain SGD"),
    pytest.param(lambda p: SparseAdamW(p, **ADAMW), lambda p: torch.optim.AdamW(p, **ADAMW), id="AdamW"),
]
Make = Callable[[list[nn.Parameter]], Optimizer]


def weight() -> nn.Parameter:
    generator = torch.Generator().manual_seed(0)
    return nn.Parameter(torch.randn(ROWS, DIM, generator=generator, dtype=torch.float64))


def gradient_of(step: int) -> Tensor:
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(step + 1), dtype=torch.float64)


def sparse(rows: Sequence[int], step: int) -> Tensor:
    return torch.sparse_coo_tensor(
        torch.tensor([list(rows)], dtype=torch.int64),
        gradient_of(step)[list(rows)],
        (ROWS, DIM),
        check_invariants=True,
    )


@pytest.mark.parametrize(("make", "torchs"), PAIRS)
@settings(max_examples=25)
@given(samples=st.lists(st.lists(st.integers(0, ROWS - 1), unique=True), max_size=8))
def test_a_row_moves_as_if_there_were_only_the_steps_that_it_is_in(
    make: Make, torchs: Make, samples: list[list[int]]
) -> None:
    moved = weight()
    optimizer = make([moved])
    for step, rows in enumerate(samples):
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        moved.grad = sparse(rows, step)
        optimizer.step()
    for row in range(ROWS):
        alone = nn.Parameter(weight().detach()[row : row + 1].clone())
        reference = torchs([alone])
        for step, rows in enumerate(samples):
            if row in rows:
                reference.param_groups[0]["lr"] = 0.1 / (step + 1)
                alone.grad = gradient_of(step)[row : row + 1]
                reference.step()
        torch.testing.assert_close(moved.detach()[row : row + 1], alone.detach(), rtol=1e-12, atol=1e-13)
        if not any(row in rows for rows in samples):
            assert torch.equal(moved.detach()[row], weight().detach()[row])


@pytest.mark.parametrize(("make", "torchs"), PAIRS)
def test_dense_gradients_move_all_rows(make: Make, torchs: Make) -> None:
    moved, reference = weight(), weight()
    optimizers = make([moved]), torchs([reference])
    for step in range(5):
        for parameter, optimizer in zip((moved, reference), optimizers, strict=True):
            parameter.grad = gradient_of(step)
            optimizer.step()
    torch.testing.assert_close(moved, reference, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("make", "torchs"), PAIRS)
def test_a_row_of_several_batches_gets_the_sum_of_their_gradients(make: Make, torchs: Make) -> None:
    twice, once = weight(), weight()
    twice.grad = sparse([2, 5], 0) + sparse([5, 1], 1)
    once.grad = sparse([2, 5], 0).to_dense() + sparse([5, 1], 1).to_dense()
    untouched = [0, 3, 4, 6]
    for parameter in (twice, once):
        make([parameter]).step()
    torch.testing.assert_close(twice[[1, 2, 5]], once[[1, 2, 5]], rtol=1e-12, atol=0)
    assert torch.equal(twice[untouched], weight()[untouched])


@pytest.mark.parametrize(("make", "torchs"), PAIRS)
def test_the_state_goes_on_where_it_was_saved(make: Make, torchs: Make) -> None:
    whole, part = weight(), weight()
    optimizer, first = make([whole]), make([part])
    for step in range(4):
        if step == 2:
            second = make([part])
            second.load_state_dict(first.state_dict())
            first = second
        whole.grad, part.grad = sparse([1, 4], step), sparse([1, 4], step)
        optimizer.step()
        first.step()
    assert torch.equal(whole, part)


def test_only_rows_of_the_sample_are_written_in_weight_and_state() -> None:
    rows = 200_000
    big = nn.Parameter(torch.zeros(rows, 8))
    optimizer = SparseAdamW([big])
    big.grad = torch.sparse_coo_tensor(
        torch.tensor([[5, rows - 1]]), torch.ones(2, 8), big.shape, check_invariants=True
    )
    optimizer.step()
    assert int((big != 0).any(dim=1).sum()) == 2
    steps = optimizer.state[big]["steps"]
    assert steps.shape == (rows, 1)
    assert steps.nonzero()[:, 0].tolist() == [5, rows - 1]


def test_a_closure_makes_the_gradients() -> None:
    parameter = weight()

    def closure() -> float:
        parameter.grad = gradient_of(0)
        return 3.5

    assert SparseSGD([parameter], 0.1).step(closure) == 3.5
    torch.testing.assert_close(parameter.detach(), weight().detach() - 0.1 * gradient_of(0))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: SparseSGD(p, -1), "lr must be at least 0, but got -1"),
        (lambda p: SparseSGD(p, 1, momentum=1.0), "momentum must be at least 0 and below 1, but got 1.0"),
        (lambda p: SparseSGD(p, 1, weight_decay=-0.1), "weight_decay must be at least 0, but got -0.1"),
        (lambda p: SparseAdamW(p, betas=(0.9, 1.5)), r"betas\[1\] must be at least 0 and below 1, but got"),
        (lambda p: SparseAdamW(p, eps=-1), "eps must be at least 0, but got -1"),
    ],
)
def test_numbers_out_of_range(make: Make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make([weight()])


def test_gradients_that_are_sparse_within_rows_are_refused() -> None:
    parameter = weight()
    parameter.grad = torch.sparse_coo_tensor(
        torch.tensor([[1], [2]]), torch.ones(1).double(), (ROWS, DIM), check_invariants=True
    )
    with pytest.raises(ValueError, match="sparse over rows alone, but one is over 2 dimensions"):
        SparseSGD([parameter], 0.1).step()
