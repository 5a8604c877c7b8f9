"""The batches of all processes as one batch."""

from dataclasses import replace

import torch.distributed as dist
from torch import Tensor, nn

from circlet.references.base import References, ReferenceSet
from circlet.references.batch import Batch
from circlet.references.gathering import default_group, gather_batch
from circlet.references.spread import Gradients, SharedAnchors, check_gradients, gradient_factor


class AllProcesses(nn.Module):
    """The batches of all processes together, as if one process had them: N processes learn as one would.

    Each process compares its own anchors with the whole batch: of N x N blocks of similarities it makes a
    row. The loss is that of the whole batch, and the same on every process. So are its gradients, exactly,
    on both sides of a pair: one gather brings the embeddings of the others, one exchange takes their
    gradients back. Batches may have different sizes, also none at all.

    The processes must call it together, with the same loss. They are told by an error if dimensions, dtypes
    or losses differ. Those that wait for one that never calls are freed by the group's time-out: set it,
    `init_process_group(timeout=timedelta(seconds=60))`.

    Args:
        references: What the whole batch is compared with, made alike on every process: None for itself, or a
            `Memory`, `Proxies` without a process group, or `Given`. A memory takes in the batches of all
            processes, and so holds the same on each.
        process_group: The processes; default all of them.
        gradients: What the training takes of the gradients of all processes. "mean", as
            `DistributedDataParallel` and lightning-fabric do, or "sum" in a loop that adds them.

    Raises:
        ValueError: The references are spread over processes themselves, or gradients is neither of the two;
            in a call, that there is no process group.

    Example:
        >>> torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
        >>> network = DistributedDataParallel(network)
        >>> everyone = references.AllProcesses()
        >>> loss = losses.CircleLoss()(network(images), labels, everyone)
        >>> loss.backward()
    """

    def __init__(
        self,
        references: References | None = None,
        *,
        process_group: dist.ProcessGroup | None = None,
        gradients: Gradients = "mean",
    ) -> None:
        super().__init__()
        if isinstance(references, AllProcesses) or getattr(references, "process_group", None) is not None:
            raise ValueError(
                f"AllProcesses takes references that every process has whole, but these "
                f"{type(references).__name__} are spread over processes themselves: give them to the loss"
            )
        check_gradients(gradients)
        self.references = Batch() if references is None else references
        self.gradients = gradients
        self._group = process_group

    @property
    def process_group(self) -> dist.ProcessGroup:
        """The processes.

        Raises:
            ValueError: There is no process group.
        """
        return self._group or default_group()

    def forward(self, embeddings: Tensor, labels: Tensor) -> ReferenceSet:
        """
        Args:
            embeddings: (batch, dim) of this process; batch may differ from process to process.
            labels: (batch,) integers.

        Raises:
            ValueError: There is no process group, the processes' embeddings differ in dimension or dtype, or
                one is not finite.
        """
        group = self.process_group
        if dist.get_world_size(group) == 1:
            return self.references(embeddings, labels)
        batch = gather_batch(embeddings, labels, group)
        given = self.references(batch.embeddings, batch.labels)
        own = None if given.self_index is None else given.self_index[batch.own]
        factor = gradient_factor(self.gradients, group)
        spread = SharedAnchors(batch, embeddings, labels, factor)
        return replace(given, self_index=own, is_batch=False, spread=spread)

    def extra_repr(self) -> str:
        return f"gradients={self.gradients!r}"
