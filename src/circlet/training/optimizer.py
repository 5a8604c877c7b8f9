"""The optimiser and its schedule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from circlet.errors import CircletError
from circlet.models import Embedder
from circlet.references import Proxies, SparseAdamW, SparseSGD
from circlet.training.checks import check_at_least


@dataclass
class OptimizerSettings:
    """The optimiser and its schedule: a linear warm-up, then down from the highest learning rate.

    Args:
        name: "adamw", "adam" or "sgd".
        learning_rate: The highest learning rate of the network.
        references_learning_rate: That of the parameters of the references (proxies) and the losses.
        weight_decay: Decoupled (AdamW) or added to the gradient (Adam, SGD); vectors, such as biases and
            normalisations, have none.
        references_weight_decay: The same for the references and the losses.
        momentum: Of SGD.
        steps: How many steps are taken.
        warmup_steps: Steps over which the learning rate rises.
        warmup_factor: What it rises from, as a share of the highest.
        schedule: After the warm-up: "cosine", half a cosine down to 0; "polynomial", a straight line down to
            0; "milestones", times `milestone_factor` at each of the milestones; "constant".
        milestones: Shares of all steps, rising, for the schedule "milestones".
        milestone_factor: What the learning rate is multiplied with there.
        frozen_backbone_steps: Steps in which the backbone stays as it is, so that a new neck and new proxies
            do not spoil pretrained weights; its normalisations then use their running statistics.
        clip_norm: Gradients are scaled down to at most this norm; 0 leaves them.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    references_learning_rate: float = 1e-2
    weight_decay: float = 1e-4
    references_weight_decay: float = 0.0
    momentum: float = 0.9
    steps: int = 1000
    warmup_steps: int = 100
    warmup_factor: float = 0.0
    schedule: Literal["cosine", "polynomial", "milestones", "constant"] = "cosine"
    milestones: Sequence[float] = ()
    milestone_factor: float = 0.1
    frozen_backbone_steps: int = 0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("optimizer", self, steps=1, warmup_steps=0, warmup_factor=0, clip_norm=0)
        check_at_least("optimizer", self, learning_rate=0, references_learning_rate=0, milestone_factor=0)
        check_at_least("optimizer", self, weight_decay=0, references_weight_decay=0, frozen_backbone_steps=0)
        rising = list(self.milestones) == sorted(self.milestones)
        if not rising or any(not 0 < share < 1 for share in self.milestones):
            raise CircletError(
                f"optimizer.milestones are rising shares of all steps, between 0 and 1, but got "
                f"{list(self.milestones)}; of step 40 of 120 the share is 0.333"
            )
        if (self.schedule == "milestones") != bool(self.milestones):
            raise CircletError(
                f"optimizer.milestones belong to the schedule 'milestones', and it to them, but got "
                f"{list(self.milestones)} with {self.schedule!r}"
            )

    def factor(self, step: int) -> float:
        """The learning rate of a step, counted from 0, as a share of the highest."""
        if step < self.warmup_steps:
            return self.warmup_factor + (1 - self.warmup_factor) * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "polynomial":
            return 1 - done
        passed = sum(step >= share * self.steps for share in self.milestones)
        return self.milestone_factor**passed


def make_optimizers(
    network: Embedder, references: nn.Module, settings: OptimizerSettings, *, fused: bool
) -> list[torch.optim.Optimizer]:
    """The optimisers: one, and where proxies are sampled another that touches their sampled rows alone.

    What is not the network has a learning rate and weight decay of its own.

    Args:
        network: The embedder. Its backbone is in groups of its own, as fused SGD can't begin with some
            parameters of a group while others have momentum already: those of a backbone that was frozen.
        references: Losses and references, whose parameters learn too, such as proxies or a learned scale.
        settings: Which optimiser.
        fused: One pass over all parameters instead of one for each operation; measured on two cores, 1.2 ms
            instead of 10.5 for AdamW over 3.2 million. Scaled gradients (16-mixed) can't be clipped with it.

    Raises:
        CircletError: Sampled proxies are to decay under Adam, which adds decay to the moments of all rows.
    """
    sampled = [
        module.weight
        for module in references.modules()
        if isinstance(module, Proxies) and module.sample_rate < 1
    ]
    rows = {id(weight) for weight in sampled}
    groups: list[dict[str, Any]] = []
    for part in (network.backbone_parameters(), network.head_parameters()):
        learned = [p for p in part if p.requires_grad]
        groups += [
            {"params": [p for p in learned if p.dim() > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in learned if p.dim() <= 1], "weight_decay": 0.0},
        ]
    of_references = {
        "weight_decay": settings.references_weight_decay,
        "lr": settings.references_learning_rate,
    }
    groups += [{"params": [p for p in references.parameters() if id(p) not in rows], **of_references}]
    groups = [group for group in groups if group["params"]]
    rate = settings.learning_rate
    optimizers: list[torch.optim.Optimizer]
    if settings.name == "sgd":
        optimizers = [torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, fused=fused)]
    elif settings.name == "adam":
        optimizers = [torch.optim.Adam(groups, lr=rate, fused=fused)]
    else:
        optimizers = [torch.optim.AdamW(groups, lr=rate, fused=fused)]
    if sampled:
        optimizers.append(_row_optimizer({"params": sampled, **of_references}, settings))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["highest_lr"] = group["lr"]
    return optimizers


def _row_optimizer(group: dict[str, Any], settings: OptimizerSettings) -> torch.optim.Optimizer:
    if settings.name == "sgd":
        return SparseSGD([group], settings.references_learning_rate, momentum=settings.momentum)
    if settings.name == "adam" and settings.references_weight_decay > 0:
        raise CircletError(
            f"with a sample of the proxies, Adam has no weight decay for them: set "
            f"optimizer.references_weight_decay to 0 instead of {settings.references_weight_decay}, or "
            f"optimizer.name to adamw or sgd"
        )
    return SparseAdamW([group])


def set_learning_rate(
    optimizers: Sequence[torch.optim.Optimizer], settings: OptimizerSettings, step: int
) -> None:
    """The learning rates of a step, counted from 0."""
    factor = settings.factor(step)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["highest_lr"] * factor


class BackboneHold:
    """Keeps the backbone as it is, and lets it go.

    Args:
        embedder: Those parameters of its backbone that need no gradient now never will.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._learned = [p for p in embedder.backbone.parameters() if p.requires_grad]
        self._holds = False

    def set(self, holds: bool) -> None:
        """Whether the next step leaves the backbone alone."""
        if holds != self._holds:
            for parameter in self._learned:
                parameter.requires_grad_(not holds)
            self._holds = holds
            self._embedder.train()
        if holds:  # at each step, as a measurement puts the whole network back into training mode
            self._embedder.backbone.eval()
