"""Optimisers for proxies of which a sample has a gradient: they touch these rows and no others."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import chain
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT, StateDict

# Numbers of a weight that are updated together on a CPU: copies of so few stay in its caches, and an update
# takes half the time of one in a single piece, or less.
_NUMBERS = 2**18


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
                if gradient.is_sparse and gradient.sparse_dim() != 1:
                    raise ValueError(
                        f"gradients may be sparse over rows alone, but one is over {gradient.sparse_dim()} "
                        f"dimensions"
                    )
                state = self.state[parameter]
                self._begin(parameter, state, group)
                if gradient.is_sparse:
                    self._update_rows(parameter, in_order(gradient), state, group)
                else:
                    self._update(parameter, gradient, state, group)
        return loss

    def _update_rows(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Copy rows of weight and state, update these, and put them back.

        Args:
            gradient: Sparse over rows, coalesced.
        """
        (rows,), values = gradient.indices(), gradient.values()
        size = len(rows)
        if weight.device.type == "cpu":
            size = _NUMBERS // max(1, math.prod(weight.shape[1:]))
        size = max(1, size)
        for start in range(0, len(rows), size):
            places = rows[start : start + size]
            some = weight.index_select(0, places)
            parts = {name: whole.index_select(0, places) for name, whole in state.items()}
            self._update(some, values[start : start + size], parts, group)
            weight.index_copy_(0, places, some)
            for name, part in parts.items():
                state[name].index_copy_(0, places, part)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, whose numbers are the optimiser's where the group has none.

        Raises:
            ValueError: A number is out of its range.
        """
        self._check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @abstractmethod
    def _check(self, group: dict[str, Any]) -> None:
        """Refuse numbers that are out of their range."""

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
    code, PartialFC_V2, gives it dense ones, so that rows outside the sample decay, and go on by their
    momentum.)

    The state, `momentum_buffer`, is of the weight's size and dtype; there is none without momentum. It is
    there from the first step on, also where no row had a gradient.

    Args:
        params: Parameters or groups of them, which may have numbers of their own.
        lr: Learning rate, at least 0.
        momentum: Of each row, at least 0 and below 1. The first step in which a row is goes by its gradient.
        weight_decay: Added to the gradient, times the row; at least 0.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> proxies = Proxies(10_000_000, 512, sample_rate=0.1)
        >>> optimizer = SparseSGD(proxies.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    """

    def __init__(
        self, params: ParamsT, lr: float, *, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def _check(self, group: dict[str, Any]) -> None:
        _check_rates(lr=group["lr"], weight_decay=group["weight_decay"])
        _check_shares(momentum=group["momentum"])

    def _begin(self, weight: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        if group["momentum"] and not state:
            state["momentum_buffer"] = torch.zeros_like(weight)

    def _update(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        if group["weight_decay"]:
            gradient = gradient.add(weight, alpha=group["weight_decay"])
        if group["momentum"]:
            gradient = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        weight.add_(gradient, alpha=-group["lr"])


class SparseAdamW(_RowOptimizer):
    """AdamW that touches only the rows of a sparse gradient.

    Over the steps in which it is in the sample, a row moves as under `torch.optim.AdamW`, whatever happens to
    the others: steps are counted for each row, as the correction of the moments' bias by a common count would
    make the first steps of a row that comes late several times too large. `torch.optim.SparseAdam` has such a
    common count, and no weight decay. With a dense gradient it is `torch.optim.AdamW`.

    The state is `exp_avg` and `exp_avg_sq`, of the weight's size and dtype, and `steps`, (rows, 1), float32.
    It is there from the first step on, also where no row had a gradient.

    Args:
        params: Parameters or groups of them, which may have numbers of their own.
        lr: Learning rate, at least 0.
        betas: The shares that the moments keep in a step, at least 0 and below 1.
        eps: Added to the root of the second moment, above 0.
        weight_decay: Decoupled: a step takes the share lr * weight_decay of a row. At least 0.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> proxies = Proxies(10_000_000, 512, sample_rate=0.1)
        >>> optimizer = SparseAdamW(proxies.parameters(), lr=1e-2, weight_decay=1e-4)
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
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Go on from a state_dict of this class."""
        super().load_state_dict(state_dict)
        # torch has given the steps the weight's dtype, and bfloat16 counts to 256 only.
        places = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        for place, parameter in zip(places, parameters, strict=True):
            if place in state_dict["state"]:
                steps = state_dict["state"][place]["steps"]
                self.state[parameter]["steps"] = steps.to(parameter.device, torch.float32)

    def _check(self, group: dict[str, Any]) -> None:
        _check_rates(lr=group["lr"], weight_decay=group["weight_decay"])
        _check_shares(**{f"betas[{place}]": beta for place, beta in enumerate(group["betas"])})
        if not group["eps"] > 0:
            raise ValueError(f"eps must be above 0, but got {group['eps']}")

    def _begin(self, weight: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
            shape = weight.shape[:1] + (1,) * (weight.dim() - 1)
            state["steps"] = torch.zeros(shape, dtype=torch.float32, device=weight.device)

    def _update(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        first, second = group["betas"]
        steps = state["steps"].add_(1).to(torch.promote_types(weight.dtype, torch.float32))
        rate = group["lr"] / _bias_correction(first, steps)
        if group["weight_decay"]:
            weight.mul_(1 - group["lr"] * group["weight_decay"])
        mean = state["exp_avg"].lerp_(gradient, 1 - first)
        square = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = square.sqrt().div_(_bias_correction(second, steps).sqrt_()).add_(group["eps"])
        weight.addcdiv_(mean, root.div_(rate), value=-1)


def in_order(gradient: Tensor) -> Tensor:
    """A gradient that is sparse over rows, with each row once, rising.

    Autograd forgets that one was so when it puts it into `grad`, and to sort the rows again and copy their
    values is a tenth of this optimiser's time, and a copy of the gradient.
    """
    rows = gradient._indices()[0]
    if bool((rows[1:] > rows[:-1]).all()):
        return torch.sparse_coo_tensor(
            gradient._indices(),
            gradient._values(),
            gradient.shape,
            is_coalesced=True,
            check_invariants=False,
        )
    return gradient.coalesce()


def _bias_correction(share: float, steps: Tensor) -> Tensor:
    """1 - share ** steps, exact also for a share near 1: how much of a moment is there."""
    return torch.expm1(steps * (math.log(share) if share else -math.inf)).neg_()


def _check_rates(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, but got {value}")


def _check_shares(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, but got {value}")
