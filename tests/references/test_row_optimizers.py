"""Rows with a gradient move as under torch's optimisers, the others not at all."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from circlet.references import SparseAdamW, SparseSGD

ROWS, DIM = 7, 3
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}
ADAMW = {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.05}
RMS = {"lr": 0.01, "betas": (0.0, 0.95), "weight_decay": 0.0}
PAIRS: list[Any] = [
    pytest.param(lambda p: SparseSGD(p, **SGD), lambda p: torch.optim.SGD(p, **SGD), id="SGD"),
    pytest.param(lambda p: SparseSGD(p, 0.1), lambda p: torch.optim.SGD(p, 0.1), id="plain SGD"),
    pytest.param(lambda p: SparseAdamW(p, **ADAMW), lambda p: torch.optim.AdamW(p, **ADAMW), id="AdamW"),
    pytest.param(lambda p: SparseAdamW(p, **RMS), lambda p: torch.optim.AdamW(p, **RMS), id="first beta 0"),
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


def test_steps_are_counted_on_past_what_the_dtype_of_the_weight_can_count() -> None:
    parameter = nn.Parameter(weight().to(torch.bfloat16))
    optimizer = SparseAdamW([parameter])
    parameter.grad = sparse([2], 0).to(torch.bfloat16)
    for _ in range(257):
        optimizer.step()
    resumed = SparseAdamW([parameter])
    resumed.load_state_dict(optimizer.state_dict())
    resumed.step()
    steps = resumed.state[parameter]["steps"]
    assert steps.dtype == torch.float32
    assert steps.flatten().tolist() == [258.0 if row == 2 else 0.0 for row in range(ROWS)]


@pytest.mark.parametrize(("make", "torchs"), PAIRS)
def test_short_floats_move_and_keep_their_dtype(make: Make, torchs: Make) -> None:
    moved, reference = (nn.Parameter(weight().to(torch.bfloat16)) for _ in range(2))
    optimizers = make([moved]), torchs([reference])
    for step in range(5):
        moved.grad = sparse(range(ROWS), step).to(torch.bfloat16)
        reference.grad = gradient_of(step).to(torch.bfloat16)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(moved, reference, rtol=2**-6, atol=2**-8)
    state = optimizers[0].state[moved]
    assert all(value.dtype == torch.bfloat16 for name, value in state.items() if name != "steps")


@pytest.mark.parametrize(("make", "torchs"), PAIRS)
def test_groups_have_numbers_of_their_own(make: Make, torchs: Make) -> None:
    own: dict[str, Any] = {"lr": 0.3, "weight_decay": 0.2, "momentum": 0.5, "betas": (0.5, 0.6)}
    moved, references = [weight(), weight()], [weight(), weight()]
    optimizer, reference = make([moved[0]]), torchs([references[0]])
    for some, last in ((optimizer, moved[1]), (reference, references[1])):
        numbers = {name: value for name, value in own.items() if name in some.defaults}
        some.add_param_group({"params": [last], **numbers})
    for step in range(3):
        for sparsely, densely in zip(moved, references, strict=True):
            sparsely.grad, densely.grad = sparse(range(ROWS), step), gradient_of(step)
        optimizer.step()
        reference.step()
    torch.testing.assert_close(moved, references, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("make", "torchs"), PAIRS)
def test_more_rows_than_are_updated_together(make: Make, torchs: Make) -> None:
    start = torch.randn(700, 1000, dtype=torch.float64)
    moved, reference = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = make([moved]), torchs([reference])
    for _ in range(2):
        gradient = torch.randn_like(start)
        moved.grad = torch.sparse_coo_tensor(
            torch.arange(700)[None], gradient, is_coalesced=True, check_invariants=True
        )
        reference.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(moved, reference, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("make", "torchs"), PAIRS)
def test_without_rows_in_the_gradient_all_stays_and_the_state_is_there(make: Make, torchs: Make) -> None:
    empty, filled = weight(), weight()
    optimizers = make([empty]), make([filled])
    empty.grad, filled.grad = sparse([], 0), sparse([1], 0)
    for optimizer in optimizers:
        optimizer.step()
    assert torch.equal(empty, weight())
    state, other = optimizers[0].state[empty], optimizers[1].state[filled]
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in other.items()
    }
    assert all(len(value) == ROWS and not value.any() for value in state.values())


class Largest(TorchDispatchMode):
    """Notes the most numbers of a tensor that an operation makes, other than the given ones."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.given = {value.data_ptr() for value in given}
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            values = made._values() if made.is_sparse else made
            if values.data_ptr() not in self.given:
                self.numbers = max(self.numbers, values.numel())
        return made


@pytest.mark.parametrize(("make", "torchs"), PAIRS)
@pytest.mark.parametrize("coalesced", [True, False])
def test_a_step_makes_no_tensor_larger_than_the_gradient(make: Make, torchs: Make, coalesced: bool) -> None:
    big = nn.Parameter(torch.randn(1000, 4))
    rows = torch.tensor([[3, 8, 999] if coalesced else [3, 999, 3]])
    big.grad = torch.sparse_coo_tensor(
        rows, torch.ones(3, 4), big.shape, is_coalesced=coalesced, check_invariants=True
    )
    optimizer = make([big])
    optimizer.step()
    with Largest([big, *optimizer.state[big].values()]) as largest:
        optimizer.step()
    assert 0 < largest.numbers <= 12


def test_a_learned_number_moves_as_under_torch() -> None:
    for make, torchs in ((SparseSGD, torch.optim.SGD), (SparseAdamW, torch.optim.AdamW)):
        moved, reference = (nn.Parameter(torch.tensor(2.0).double()) for _ in range(2))
        optimizers = make([moved], 0.1, weight_decay=0.1), torchs([reference], 0.1, weight_decay=0.1)
        for parameter, optimizer in zip((moved, reference), optimizers, strict=True):
            parameter.grad = torch.tensor(0.5).double()
            optimizer.step()
        torch.testing.assert_close(moved, reference, rtol=1e-12, atol=0)


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
        (lambda p: SparseAdamW(p, eps=0), "eps must be above 0, but got 0"),
        (lambda p: SparseSGD([{"params": p, "momentum": 2}], 1), "momentum must be .* below 1, but got 2"),
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
