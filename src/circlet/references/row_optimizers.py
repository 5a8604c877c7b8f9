"""Optimisers for proxies of which a sample has a gradient: they touch these rows and no others."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT


class _RowOptimizer(Optimizer, ABC):
    """A step over the rows that have a gradient: all of them, or those of a sparse one."""

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step.

        Args:
            closure: Makes the gradients anew and returns the loss.

        Returns:
            What the closure returned.

        Raises:
            ValueError: A gradient is sparse over more than its rows.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if not gradient.is_sparse:
                    self._update(parameter, gradient, self.state[parameter], group)
                    continue
                if gradient.sparse_dim() != 1:
                    raise ValueError(
                        f"gradients may be sparse over rows alone, but one is over {gradient.sparse_dim()} "
                        f"dimensions"
                    )
                gradient = gradient.coalesce()
                (rows,), values = gradient.indices(), gradient.values()
                if len(rows) > 0:
                    self._update_rows(parameter, rows, values, self.state[parameter], group)
        return loss

    def _update_rows(
        self, weight: Tensor, rows: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Copy the rows of weight and state, update these, and put them back."""
        self._begin(weight, state, group)
        some = weight.index_select(0, rows)
        parts = {name: values.index_select(0, rows) for name, values in state.items()}
        self._update(some, gradient, parts, group)
        weight.index_copy_(0, rows, some)
        for name, values in parts.items():
            state[name].index_copy_(0, rows, values)

    @abstractmethod
    def _begin(self, weight: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """Make the state of a parameter where there is none: zeros, with a row for each of its rows."""

    @abstractmethod
    def _update(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Update weight and state in place."""


class SparseSGD(_RowOptimizer):
    """SGD with momentum and weight decay that touches only the rows of a sparse gradient.

    For proxies with a sample rate: `Proxies(num_classes, dim, sample_rate=0.1)`. A row that is not in the
    sample keeps its value and its momentum, and no weight decays. A step costs what its rows cost. Over the
    steps in which it is in the sample, a row moves as under `torch.optim.SGD`. With a dense gradient it is
    that optimiser. (`torch.optim.SGD` itself refuses weight decay of sparse gradients. Partial FC's published
    code gives it dense ones, so that rows outside the sample decay, and go on by their momentum.)

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        momentum: Of each row.
        weight_decay: Added to the gradient, times the row.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> proxies = Proxies(10_000_000, 512, sample_rate=0.1)
        >>> optimizer = SparseSGD(proxies.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    """

    def __init__(
        self, params: ParamsT, lr: float, *, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        _check_rates(lr=lr, weight_decay=weight_decay)
        _check_shares(momentum=momentum)
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def _begin(self, weight: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        if group["momentum"] and not state:
            state["momentum_buffer"] = _zeros_like(weight)

    def _update(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        if group["weight_decay"]:
            gradient = gradient.add(weight, alpha=group["weight_decay"])
        if group["momentum"]:
            self._begin(weight, state, group)
            gradient = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        weight.add_(gradient, alpha=-group["lr"])


class SparseAdamW(_RowOptimizer):
    """AdamW that touches only the rows of a sparse gradient.

    Over the steps in which it is in the sample, a row moves as under `torch.optim.AdamW`, whatever happens to
    the others: steps are counted for each row, as the correction of the moments' bias by a common count would
    make the first steps of a row that comes late several times too large. `torch.optim.SparseAdam` has such a
    common count, and no weight decay. With a dense gradient it is `torch.optim.AdamW`.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        betas: How fast the moments forget.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled: a step takes the share lr * weight_decay of a row.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> optimizer = SparseAdamW(Proxies(10_000_000, 512, sample_rate=0.1).parameters(), lr=1e-2)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        _check_rates(lr=lr, weight_decay=weight_decay, eps=eps)
        _check_shares(**{"betas[0]": betas[0], "betas[1]": betas[1]})
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _begin(self, weight: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = _zeros_like(weight), _zeros_like(weight)
            shape = (len(weight), *[1] * (weight.dim() - 1))
            state["steps"] = torch.zeros(shape, device=weight.device)

    def _update(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        self._begin(weight, state, group)
        first, second = group["betas"]
        steps = state["steps"].add_(1).to(torch.float64)
        rate = (group["lr"] / (1 - first**steps)).to(weight.dtype)
        correction = (1 - second**steps).sqrt().to(weight.dtype)
        if group["weight_decay"]:
            weight.mul_(1 - group["lr"] * group["weight_decay"])
        mean = state["exp_avg"].lerp_(gradient, 1 - first)
        square = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        weight.sub_(square.sqrt().div_(correction).add_(group["eps"]).reciprocal_().mul_(mean).mul_(rate))


def sparse_gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The values of all gradients, coalesced where they are sparse, for a norm over them."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return [some.coalesce().values() if some.is_sparse else some for some in gradients]


def _zeros_like(weight: Tensor) -> Tensor:
    # torch.zeros takes pages that the system clears when they are touched, and not before.
    return torch.zeros(weight.shape, dtype=weight.dtype, device=weight.device)


def _check_rates(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, but got {value}")


def _check_shares(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, but got {value}")
