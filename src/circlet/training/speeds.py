"""How fast this machine does what a step of class-level training is made of; takes about a second."""

import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from circlet.engine.plan import cross_tile_sizes
from circlet.training.planning import VALUE, ClassTraining, Machine

# Numbers of a tensor that no cache holds, as the proxies of a step, and of one that rows are taken from.
_PROXIES, _LARGE = 2**22, 2**26
_REPEATS = 5


def measured(training: ClassTraining, network: float) -> Machine:
    """
    Args:
        training: Whose shapes the products have.
        network: Bytes per second, which are not measured.

    Returns:
        The speeds of this process with its threads, on an accelerator if there is one.
    """
    device = this_device()
    memory = torch.ones(_LARGE, device=device)
    return Machine(
        products=_products(training, device),
        rows=_rows(memory, training.dim),
        stream=_stream(memory),
        cached=_cached(training, device),
        network=network,
        call=seconds_of_a_call(device),
    )


def this_device() -> torch.device:
    """The accelerator if there is one."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def seconds_of_a_call(device: torch.device) -> float:
    """What a call of a small operation takes: on an accelerator, how fast this processor gives it work."""
    small = torch.zeros(8, device=device)

    def calls() -> None:
        for _ in range(1000):
            small.add_(1.0)

    return _seconds(calls, device) / 1000


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    """The median of a few runs after one that is not counted."""

    def synchronized() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize()

    found = []
    for _ in range(_REPEATS + 1):
        synchronized()
        started = time.perf_counter()
        function()
        synchronized()
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:])


def _products(training: ClassTraining, device: torch.device) -> float:
    """The three products of a tile, over proxies that come from memory."""
    sizes = cross_tile_sizes(training.batch)
    anchors = torch.randn(sizes.rows, training.dim, device=device)
    proxies = torch.randn(math.ceil(_PROXIES / training.dim), training.dim, device=device)
    of_anchors, of_proxies = torch.zeros_like(anchors), torch.zeros_like(proxies)
    memory = anchors.new_empty(sizes.rows, sizes.columns)

    def products() -> None:
        for block, of_block in zip(
            torch.split(proxies, sizes.columns), torch.split(of_proxies, sizes.columns), strict=True
        ):
            tile = memory.view(-1)[: sizes.rows * len(block)].view(sizes.rows, -1)
            torch.mm(anchors, block.T, out=tile)
            of_anchors.addmm_(tile, block)
            torch.addmm(of_block, tile.T, anchors, beta=0, out=of_block)

    return 6 * sizes.rows * proxies.numel() / _seconds(products, device)


def _rows(memory: Tensor, dim: int) -> float:
    """Rows of a large tensor, a tenth of them, in order but with gaps."""
    table = memory[: len(memory) // dim * dim].view(-1, dim)
    places = torch.rand(len(table), device=memory.device).lt_(0.1).nonzero()[:, 0]
    some = torch.empty(len(places), dim, device=memory.device)
    seconds = _seconds(lambda: torch.index_select(table, 0, places, out=some), memory.device)
    return 2 * some.numel() * VALUE / seconds


def _stream(memory: Tensor) -> float:
    """Passes over large tensors: a sum of two, written to one."""
    first, second = memory.chunk(2)
    return 3 * first.numel() * VALUE / _seconds(lambda: first.add_(second, alpha=0.0), memory.device)


def _cached(training: ClassTraining, device: torch.device) -> float:
    """What the engine does with a tile: scaling, an exponential in base 2, weights, and a sum."""
    sizes = cross_tile_sizes(training.batch)
    products, tile = torch.rand(2, sizes.rows, sizes.columns, device=device).unbind()
    by_row, by_column = tile[:, :1].clone(), products[0].clone()

    def passes() -> None:
        for _ in range(8):
            torch.mul(products, by_column, out=tile)
            torch.add(-by_row, tile, alpha=2.0, out=tile).exp2_()
            tile.mul_(by_row)
            tile.sum(dim=1)

    return 8 * 9 * tile.numel() * VALUE / _seconds(passes, device)
