"""Past embeddings as references beside the batch: cross-batch memory."""

import torch
from torch import Tensor, nn

from circlet.references.base import ReferenceSet
from circlet.references.batch import Batch


class Memory(nn.Module):
    """The batch and the embeddings of the batches before it (cross-batch memory, Wang et al., CVPR 2020).

    A network that learns slowly would hardly embed an earlier picture otherwise today. So the embeddings of
    earlier batches are kept, and each sample is compared with thousands at the cost of a matrix product.

    The references of a call are the batch itself, with gradients on both sides of a pair and each anchor's
    pair with itself left out by index, and the past embeddings, which are constants. Then the batch is taken
    in, and what is older than the last `size` embeddings is forgotten. Only a call in training mode with
    gradients enabled takes in; in eval mode and under `torch.no_grad()` the memory stays as it is.

    One call is one batch. Two losses on one memory share the call, as with a second one the batch would meet
    itself in the memory:

        given = memory(embeddings, labels)
        loss = one(embeddings, labels, given) + other(embeddings, labels, given)

    All that changes is in the state_dict, so that a training that is taken up again goes on exactly. There
    are no parameters.

    What differs from the authors' code (https://github.com/msight-tech/research-xbm): there two losses are
    added, of the batch against itself and against a memory that holds it already, so that a pair within the
    batch counts twice; an anchor's pair with itself is left out by its value, a similarity above 1 - 1e-5,
    and duplicates with it; a batch that does not fit behind the others overwrites the newest of them; and
    nothing is taken in before the warm-up has ended.

    Args:
        size: How many embeddings are kept, in size * embedding_dim * 4 bytes. Of a larger batch the last
            `size` are. Default 8192, as in the authors' code.
        embedding_dim: The dimension of the embeddings.
        warmup: For so many calls the references are the batch alone and the memory only takes in, because
            early embeddings are soon out of date. The paper warms up for 1,000 batches. Default 0, which
            suits a network that has been trained before.

    Embeddings are kept as they come, not normalised, in the dtype of the module: float32, unless it was
    converted by `.to(torch.bfloat16)`, which halves the memory, or `.double()`. The references have the
    wider dtype of the two. They have the device of the embeddings; a module elsewhere costs a copy a call.

    Raises:
        ValueError: A size is below 1, or warmup below 0.

    Example:
        >>> memory = Memory(size=8192, embedding_dim=512, warmup=1000)
        >>> loss = losses.CircleLoss()(embeddings, labels, memory)
    """

    vectors: Tensor
    labels: Tensor
    taken: Tensor
    calls: Tensor

    def __init__(self, size: int = 8192, embedding_dim: int = 512, *, warmup: int = 0) -> None:
        super().__init__()
        if min(size, embedding_dim) < 1 or warmup < 0:
            raise ValueError(
                f"size and embedding_dim must be at least 1 and warmup at least 0, but got {size}, "
                f"{embedding_dim} and {warmup}"
            )
        self.size = size
        self.warmup = warmup
        # A ring. What was taken in as number n, counted from the first call on, lies at place n % size.
        self.register_buffer("vectors", torch.zeros(size, embedding_dim))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    @property
    def count(self) -> int:
        """How many embeddings it holds."""
        return min(int(self.taken), self.size)

    def forward(self, embeddings: Tensor, labels: Tensor) -> ReferenceSet:
        """
        Args:
            embeddings: (batch, embedding_dim), any float dtype.
            labels: (batch,) integers.

        Returns:
            The batch, followed by the past embeddings: (batch + count) vectors.

        Raises:
            ValueError: The shapes are not as said. The memory is then as before.
        """
        dim = self.vectors.shape[1]
        if embeddings.shape != (len(labels), dim):
            raise ValueError(
                f"the memory takes embeddings of shape (batch, {dim}) with a label each, but got shape "
                f"{tuple(embeddings.shape)} and {len(labels)} labels; embedding_dim sets the dimension"
            )
        given = self._references(embeddings, labels)
        if self.training and torch.is_grad_enabled():
            self._take_in(embeddings.detach(), labels)
        return given

    def reset(self) -> None:
        """Forget everything; the warm-up begins again."""
        self.taken.zero_()
        self.calls.zero_()

    def _references(self, embeddings: Tensor, labels: Tensor) -> ReferenceSet:
        batch: ReferenceSet = Batch()(embeddings, labels)
        if self.calls < self.warmup or self.count == 0:
            return batch  # each similarity is then computed once for both of its anchors
        past, device = slice(self.count), embeddings.device
        # Concatenation copies, so that taking in the batch does not change what the loss was given.
        return ReferenceSet(
            torch.cat([embeddings, self.vectors[past].to(device)]),
            torch.cat([labels.to(device), self.labels[past].to(device)]),
            batch.self_index,
        )

    @torch.no_grad()
    def _take_in(self, embeddings: Tensor, labels: Tensor) -> None:
        newest = slice(max(0, len(labels) - self.size), len(labels))
        number = int(self.taken) + torch.arange(newest.start, newest.stop, device=self.vectors.device)
        self.vectors[number % self.size] = embeddings[newest].to(self.vectors)
        self.labels[number % self.size] = labels[newest].to(self.labels)
        self.taken += len(labels)
        self.calls += 1

    def extra_repr(self) -> str:
        return f"size={self.size}, embedding_dim={self.vectors.shape[1]}, warmup={self.warmup}"
