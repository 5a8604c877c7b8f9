"""What is trained: the network, and the references that learn or remember."""

import math

import torch
from torch import Tensor, nn

from circlet.losses import PairLoss
from circlet.models import Embedder
from circlet.references import ReferenceSet
from circlet.training.recipe import OptimizerSettings


class Learner(nn.Module):
    """Embedder, loss and references as one module, so that one checkpoint holds their state.

    Args:
        embedder: The network: pictures to embeddings.
        criterion: The loss.
        references: Class proxies or a memory; None compares the batch with itself.

    Attributes:
        compared: What the last batch was compared with.
    """

    def __init__(self, embedder: Embedder, criterion: PairLoss, references: nn.Module | None) -> None:
        super().__init__()
        self.embedder = embedder
        self.criterion = criterion
        self.references = references
        self.compared: ReferenceSet | None = None

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Raises:
            ValueError: An embedding or the loss is not finite.
        """
        # Kept for a look at the similarities: a memory goes on with the call, and holds other vectors then.
        self.compared = None if self.references is None else self.references(embeddings, labels)
        loss: Tensor = self.criterion(embeddings, labels, self.compared)
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()}")
        return loss


def make_optimizer(learner: Learner, settings: OptimizerSettings, *, fused: bool) -> torch.optim.Optimizer:
    """The optimiser: weight decay on the network's matrices alone, a learning rate of its own for
    the parameters of references and loss.

    Args:
        fused: One pass over all parameters instead of one for each operation; measured on two cores, 1.2 ms
            instead of 10.5 for AdamW over 3.2 million. Scaled gradients (16-mixed) can't be clipped with it.
    """
    network = [p for p in learner.embedder.parameters() if p.requires_grad]
    # A loss may learn too, such as its scale.
    references = list(learner.criterion.parameters())
    if learner.references is not None:
        references += learner.references.parameters()
    groups = [
        {"params": [p for p in network if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in network if p.dim() <= 1], "weight_decay": 0.0},
        {"params": references, "weight_decay": 0.0, "lr": settings.references_learning_rate},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            groups, lr=settings.learning_rate, momentum=settings.momentum, fused=fused
        )
    else:
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=fused)
    for group in optimizer.param_groups:
        group["highest_lr"] = group["lr"]
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, settings: OptimizerSettings, step: int) -> None:
    """Linear warm-up to the highest learning rate, then half a cosine down to 0 at the last step."""
    if step < settings.warmup_steps:
        factor = (step + 1) / settings.warmup_steps
    else:
        left = max(1, settings.steps - settings.warmup_steps)
        factor = 0.5 * (1 + math.cos(math.pi * (step - settings.warmup_steps) / left))
    for group in optimizer.param_groups:
        group["lr"] = group["highest_lr"] * factor
