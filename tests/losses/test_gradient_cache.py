"""Gradient caching: the gradients of a whole batch from chunks of it."""

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circlet import losses, references
from circlet.losses import cached_backward

BATCH, WIDTH, DIM, CLASSES = 30, 9, 6, 5


def make_network(dropout: float = 0.0, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    hidden = [nn.Linear(WIDTH, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(dropout)]
    return nn.Sequential(*hidden, nn.Linear(16, DIM)).to(dtype)


def make_batch(dtype: torch.dtype = torch.float64, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(BATCH) % CLASSES
    centres = torch.randn(CLASSES, WIDTH, generator=generator, dtype=dtype)
    return centres[labels] + torch.randn(BATCH, WIDTH, generator=generator, dtype=dtype), labels


def in_one_graph(
    network: nn.Module, chunks: Sequence[Tensor], loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """What is to be equalled: the graphs of all chunks at once, and autograd through them."""
    embeddings = torch.cat([network(chunk) for chunk in chunks])
    total = loss(embeddings)
    total.backward()
    return total.detach(), embeddings.detach()


def gradients(*modules: nn.Module) -> list[Tensor]:
    found = [parameter.grad for module in modules for parameter in module.parameters()]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in found)
    return [gradient.clone() for gradient in found if gradient is not None]


def make_references(kind: str, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(5)
    if kind == "proxies":
        return references.Proxies(CLASSES, DIM).to(dtype)
    if kind == "memory":
        memory = references.Memory(50, DIM).to(dtype)
        generator = torch.Generator().manual_seed(6)
        for _ in range(2):
            past = torch.randn(BATCH, DIM, generator=generator, dtype=dtype)
            memory(past, torch.arange(BATCH) % CLASSES)
        return memory
    return references.Batch()


@pytest.mark.parametrize("size", [1, 7, 15, 29, 30, 100])
@pytest.mark.parametrize("kind", ["batch", "proxies", "memory"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_the_whole_batch(kind: str, size: int, dtype: torch.dtype) -> None:
    images, labels = make_batch(dtype)
    criterion = losses.CircleLoss(0.4, 32)
    # Products of other shapes are rounded otherwise, which the loss enlarges to 2e-6 in float32.
    whole, tolerance = ([images], 1e-12) if dtype == torch.float64 else (images.split(size), 1e-6)
    results = []
    for cached in (False, True):
        network, compared = make_network(dtype=dtype), make_references(kind, dtype)

        def loss(embeddings: Tensor, compared: nn.Module = compared) -> Tensor:
            return criterion(embeddings, labels, compared)

        if cached:
            total, embeddings = cached_backward(network, images.split(size), loss)
        else:
            total, embeddings = in_one_graph(network, whole, loss)
        assert not total.requires_grad
        assert not embeddings.requires_grad
        results.append([total, embeddings, *gradients(network, compared), *compared.buffers()])
    for mine, theirs in zip(results[1], results[0], strict=True):
        if mine.is_floating_point():
            assert (mine - theirs).norm() <= tolerance * theirs.norm()
        else:  # the memory has taken in the batch once
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("size", [4, 7, 30])
def test_dropout_draws_the_same_in_both_passes(size: int) -> None:
    images, labels = make_batch()
    chunks = images.split(size)
    criterion = losses.CircleLoss(0.4, 32)

    def loss(embeddings: Tensor) -> Tensor:  # draws, too
        return criterion(embeddings + 0.1 * torch.randn_like(embeddings), labels)

    results = []
    for step in (in_one_graph, cached_backward):
        network = make_network(dropout=0.5)
        torch.manual_seed(11)
        total, embeddings = step(network, chunks, loss)
        results.append([total, embeddings, *gradients(network), torch.rand(3)])
    for mine, theirs in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_dropout_on_a_cuda_device_draws_the_same_in_both_passes() -> None:
    images, labels = (tensor.cuda() for tensor in make_batch())
    results = []
    for step in (in_one_graph, cached_backward):
        network = make_network(dropout=0.5).cuda()
        torch.manual_seed(11)
        total, _ = step(network, images.split(7), lambda embeddings: losses.CircleLoss()(embeddings, labels))
        results.append([total, *gradients(network), torch.rand(3, device="cuda")])
    for mine, theirs in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def with_statistics() -> nn.Module:
    """Layers that change buffers in every forward pass in training mode."""
    torch.manual_seed(0)
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(16, DIM))
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.BatchNorm1d(16), nn.Tanh(), spectral).double()


def test_buffers_change_once_for_each_chunk_and_gradients_are_exact() -> None:
    images, labels = make_batch()
    results = []
    for step in (in_one_graph, cached_backward):
        network = with_statistics()
        total, _ = step(
            network, images.split(7), lambda embeddings: losses.CircleLoss(0.4, 32)(embeddings, labels)
        )
        results.append([total, *gradients(network), *network.buffers()])
    for mine, theirs in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_eval_mode_changes_no_buffer_and_equals_the_whole_batch() -> None:
    images, labels = make_batch()
    results = []
    for chunks in ([images], images.split(7)):
        network = with_statistics().eval()
        before = [buffer.clone() for buffer in network.buffers()]
        total, _ = cached_backward(
            network, chunks, lambda embeddings: losses.CircleLoss(0.4, 32)(embeddings, labels)
        )
        assert all(map(torch.equal, network.buffers(), before))
        results.append([total, *gradients(network)])
    for mine, theirs in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


class Saved:
    """Counts the values that graphs keep for the backward pass, besides parameters."""

    def __init__(self, network: nn.Module) -> None:
        self.now = self.peak = 0
        self.parameters = {tensor.untyped_storage().data_ptr() for tensor in network.parameters()}

    def pack(self, tensor: Tensor) -> Callable[[], Tensor]:
        def keep() -> Tensor:
            return tensor

        if tensor.untyped_storage().data_ptr() not in self.parameters:
            self.now += tensor.numel()
            self.peak = max(self.peak, self.now)
            weakref.finalize(keep, self.free, tensor.numel())
        return keep

    def free(self, count: int) -> None:
        self.now -= count


def test_there_is_the_graph_of_one_chunk_at_a_time() -> None:
    images, labels = make_batch()
    wide = nn.Sequential(nn.Linear(WIDTH, 2000), nn.Tanh(), nn.Linear(2000, DIM)).double()
    for size in (BATCH, BATCH // 2, 5, 1):
        saved = Saved(wide)
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda keep: keep()):
            cached_backward(
                wide, images.split(size), lambda embeddings: losses.CircleLoss()(embeddings, labels)
            )
        # Of each picture the layers keep their inputs and Tanh its result. The loss keeps a little.
        of_network = size * (WIDTH + 2 * 2000)
        assert of_network <= saved.peak <= of_network + 1000
        assert saved.now == 0


class Counting(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        embeddings: Tensor = self.network(images)
        return embeddings


def test_a_single_chunk_is_embedded_once_in_the_plain_way() -> None:
    images, labels = make_batch(torch.float32)
    results = []
    for step in (in_one_graph, cached_backward):
        network = Counting(make_network(0.5, torch.float32))
        torch.manual_seed(3)
        step(network, [images], lambda embeddings: losses.CircleLoss()(embeddings, labels))
        assert network.sizes == [BATCH]
        results.append(gradients(network))
    assert all(map(torch.equal, *results))


def test_chunks_may_differ_in_size_and_the_loss_is_asked_once() -> None:
    images, labels = make_batch()
    network, asked = Counting(make_network()), []

    def loss(embeddings: Tensor) -> Tensor:
        asked.append(len(embeddings))
        return losses.CircleLoss()(embeddings, labels)

    chunks = (chunk for chunk in images.split([1, 20, 9]))  # of a generator, too
    cached_backward(network, chunks, loss)
    assert network.sizes == [1, 20, 9, 1, 20, 9]
    assert asked == [BATCH]


def test_chunks_may_be_anything_that_the_network_takes() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(WIDTH, DIM).double()

        def forward(self, chunk: dict[str, Tensor]) -> Tensor:
            embeddings: Tensor = self.layer(chunk["left"] - chunk["right"])
            return embeddings

    images, labels = make_batch()
    network = Pairs()
    chunks = [{"left": chunk, "right": chunk.flip(1)} for chunk in images.split(8)]
    criterion = losses.CircleLoss(0.4, 32)
    cached_backward(network, chunks, lambda embeddings: criterion(embeddings, labels))
    mine = gradients(network)
    network.zero_grad()
    criterion(network({"left": images, "right": images.flip(1)}), labels).backward()
    for own, expected in zip(mine, gradients(network), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-12)


def test_scaled_losses_add_up_as_in_accumulation() -> None:
    criterion, batches = losses.CircleLoss(0.4, 32), [make_batch(seed=seed) for seed in (1, 2)]
    network = make_network()
    for images, labels in batches:
        (criterion(network(images), labels) / 2).backward()
    expected = gradients(network)
    network.zero_grad()
    for images, labels in batches:
        total, _ = cached_backward(
            network,
            images.split(8),
            lambda embeddings, labels=labels: criterion(embeddings, labels),
            backward=lambda loss: (loss / 2).backward(),
        )
        torch.testing.assert_close(total, criterion(network(images), labels).detach())  # not scaled
    for mine, theirs in zip(gradients(network), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_a_gradient_scaler_scales_once() -> None:
    images, labels = make_batch(torch.float32)
    criterion, kept = losses.CircleLoss(0.4, 32), []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**12)):
        network, proxies = make_network(dtype=torch.float32), make_references("proxies", torch.float32)

        def loss(embeddings: Tensor, proxies: nn.Module = proxies) -> Tensor:
            return criterion(embeddings, labels, proxies)

        backward = Tensor.backward if scaler is None else scaled_by(scaler)
        cached_backward(network, images.split(8), loss, backward=backward)
        if scaler is not None:
            scaler.unscale_(torch.optim.SGD([*network.parameters(), *proxies.parameters()]))
        kept.append(gradients(network, proxies))
    for mine, theirs in zip(kept[1], kept[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def scaled_by(scaler: torch.amp.GradScaler) -> Callable[[Tensor], None]:
    def backward(loss: Tensor) -> None:
        scaler.scale(loss).backward()

    return backward


def test_autocast_around_it_holds_for_both_forward_passes_and_no_backward_pass() -> None:
    images, labels = make_batch(torch.float32)
    criterion, seen = losses.CircleLoss(0.4, 32), []

    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: Tensor) -> Tensor:
            return tensor.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            seen.append((torch.is_autocast_enabled("cpu"), gradient.dtype))
            return gradient

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = make_network(dtype=torch.float32)

        def forward(self, images: Tensor) -> Tensor:
            embeddings: Tensor = self.network(images)
            seen.append((torch.is_autocast_enabled("cpu"), embeddings.dtype))
            return Watch.apply(embeddings)  # type: ignore[no-any-return]

    network = Watched()
    criterion(network(images), labels).backward()
    exact = gradients(network)
    network.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = criterion(network(images), labels)
    plain.backward()
    error = max(distance(mine, theirs) for mine, theirs in zip(gradients(network), exact, strict=True))
    network.zero_grad()
    seen.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, embeddings = cached_backward(
            network, images.split(10), lambda embeddings: criterion(Watch.apply(embeddings), labels)
        )
        assert torch.is_autocast_enabled("cpu")
    forward, backward = (True, torch.bfloat16), (False, torch.bfloat16)
    assert seen == [forward] * 3 + [backward] + [forward, backward] * 3
    assert (total.dtype, embeddings.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(total, plain.detach(), rtol=1e-6, atol=0)
    for mine, theirs in zip(gradients(network), exact, strict=True):
        assert distance(mine, theirs) < 1.5 * error


def distance(mine: Tensor, theirs: Tensor) -> float:
    return float((mine - theirs).norm() / theirs.norm())


def test_embeddings_that_are_not_finite_leave_no_gradient() -> None:
    images, labels = make_batch()
    images[3, 0] = math.nan
    network = make_network()
    with pytest.raises(ValueError, match="1 of 30 rows hold NaN"):
        cached_backward(network, images.split(7), lambda embeddings: losses.CircleLoss()(embeddings, labels))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_what_makes_no_sense_is_refused() -> None:
    images, labels = make_batch()
    with pytest.raises(ValueError, match="at least one chunk"):
        cached_backward(make_network(), [], lambda embeddings: embeddings.sum())
    proxies = make_references("proxies", torch.float64)
    with pytest.raises(ValueError, match="does not depend on the embeddings"):
        cached_backward(
            make_network(),
            images.split(7),
            lambda embeddings: losses.CircleLoss()(embeddings.detach(), labels, proxies),
        )
