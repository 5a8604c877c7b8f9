"""The gradient of a batch that is too large for one graph: embedded in chunks, twice."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Chunk = TypeVar("Chunk")


def cached_backward(
    network: nn.Module,
    chunks: Iterable[Chunk],
    loss: Callable[[Tensor], Tensor],
    *,
    backward: Callable[[Tensor], Any] = Tensor.backward,
) -> tuple[Tensor, Tensor]:
    """The gradients of a loss over a whole batch, in the memory of one chunk (Gao et al., RepL4NLP 2021).

    A loss over pairs can't be computed chunk by chunk, as each sample is compared with all. So:

    1. Embed the chunks one after the other, without a graph.
    2. Compute the loss of all embeddings and its gradients in them.
    3. Embed each chunk again, with a graph, and go back from its part of these gradients.

    This adds to `.grad` what `loss(network(batch)).backward()` would, for one forward pass more. A single
    chunk takes that plain way itself. Gradients add up over calls as always, and stepping is the caller's.

    The second pass repeats the first: it begins with the same random state, on the CPU and the devices of the
    network, for dropout; and with the same buffers, so that running statistics count each chunk once. When
    all is done the random state is as after one plain forward pass and the loss.

    Results are equal to the plain ones, up to rounding, where a sample's embedding does not depend on the
    others. Batch normalisation in training mode takes its statistics of a chunk instead of the batch: the
    gradients are then exactly those of such a network.

    Args:
        network: Called with a chunk, gives its embeddings (chunk, dim). To pass several arguments, wrap it
            into a module that takes them as one.
        chunks: The batch in parts of any sizes, such as `images.split(64)`, or a list of dictionaries.
        loss: All embeddings (batch, dim), in the order of the chunks, to the loss, a scalar. It is called
            once, so that a memory takes the batch in once. Parameters of its own, such as proxies, get their
            gradients too.
        backward: Goes back from the loss, once. Scaling belongs here, as all gradients follow from it:
            `lambda loss: scaler.scale(loss).backward()`, or `lambda loss: (loss / 4).backward()`.

    Mixed precision: call it under `torch.autocast`. Both passes and the loss heed that, the backward passes
    leave it, as they should.

    Returns:
        The loss as `loss` gave it, and the embeddings (batch, dim); both detached.

    Raises:
        ValueError: There are no chunks, or the loss does not depend on the embeddings.

    Example:
        >>> criterion, memory = losses.CircleLoss(), references.Memory()
        >>> loss, embeddings = cached_backward(
        ...     network, images.split(64), lambda embeddings: criterion(embeddings, labels, memory)
        ... )
        >>> optimizer.step()
    """
    chunks = list(chunks)
    if not chunks:
        raise ValueError("cached_backward needs at least one chunk, but got none")
    if len(chunks) == 1:
        embeddings = network(chunks[0])
        total = loss(embeddings)
        with _without_autocast(embeddings):
            backward(total)
        return total.detach(), embeddings.detach()

    before = _random_states(network)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.no_grad():
        parts = [network(chunk) for chunk in chunks]
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
    # Some versions of torch would go on with weights that were cast here, where they have no graph.
    torch.clear_autocast_cache()

    embeddings = torch.cat(parts).requires_grad_()
    total = loss(embeddings)
    with _without_autocast(embeddings):
        backward(total)
    if embeddings.grad is None:
        raise ValueError("the loss does not depend on the embeddings: there is no gradient to go on with")

    after = _random_states(network)
    _set_random_states(before)
    gradients = torch.split(embeddings.grad, [len(part) for part in parts])
    for chunk, gradient in zip(chunks, gradients, strict=True):
        part = network(chunk)
        with _without_autocast(part):
            part.backward(gradient)
    _set_random_states(after)
    return total.detach(), embeddings.detach()


def _without_autocast(tensor: Tensor) -> torch.autocast:
    """A backward pass has the dtypes of its forward pass; autocast would change them once more."""
    return torch.autocast(tensor.device.type, enabled=False)


def _random_states(network: nn.Module) -> dict[torch.device, Tensor]:
    """The state of the CPU's generator and of those of all devices that the network is on."""
    devices = {tensor.device for tensor in [*network.parameters(), *network.buffers()]}
    states = {torch.device("cpu"): torch.get_rng_state()}
    for device in devices - states.keys():
        states[device] = torch.get_device_module(device).get_rng_state(device)
    return states


def _set_random_states(states: dict[torch.device, Tensor]) -> None:
    for device, state in states.items():
        if device.type == "cpu":
            torch.set_rng_state(state)
        else:
            torch.get_device_module(device).set_rng_state(state, device)
