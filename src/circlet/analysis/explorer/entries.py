"""The losses that the page offers, and what of each can be moved.

A new one is an entry here, and the same formula by the same name in losses.js; a test compares the two.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import pi
from typing import Any

from circlet import losses
from circlet.losses import PairLoss


@dataclass(frozen=True)
class Slider:
    """An argument of a loss that can be moved.

    Attributes:
        name: the argument.
        symbol: as it stands in the papers.
        low: its smallest value on the page.
        high: its largest.
        logarithmic: equal steps multiply; low is above 0.
        follows: (offset, slope): until it is moved it is offset + slope margin, as in the loss itself.
    """

    name: str
    symbol: str
    low: float
    high: float
    logarithmic: bool = False
    follows: tuple[float, float] | None = None


@dataclass(frozen=True)
class Entry:
    """A loss of the page.

    Attributes:
        loss: the class.
        title: its usual name, and the names of those that are the same with one positive and one negative.
        group: the shape of its decision boundary.
        sliders: what can be moved. Values to begin with are the defaults of the class.
        fixed: arguments that tell it from another entry of the same class.
        switches: arguments that are True or False.
    """

    loss: type[PairLoss]
    title: str
    group: str
    sliders: Sequence[Slider] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    switches: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Unique among the entries, and the same in losses.js: the class, with what is fixed."""
        fixed = ", ".join(f'{name}="{value}"' for name, value in self.fixed.items())
        return self.loss.__name__ + (f"({fixed})" if fixed else "")

    def defaults(self) -> dict[str, float | bool | None]:
        """The value of each slider and switch to begin with; None for one that follows the margin."""
        arguments = inspect.signature(self.loss).parameters
        names = [*(slider.name for slider in self.sliders), *self.switches]
        return {name: arguments[name].default for name in names}

    def build(self, values: Mapping[str, float | bool | None]) -> PairLoss:
        """The loss with these values of its sliders and switches; those not given have their defaults."""
        make: Callable[..., PairLoss] = self.loss
        return make(**self.fixed, **values)


MARGIN, SCALE = Slider("margin", "m", -0.2, 1.0), Slider("scale", "γ", 0.5, 1024, logarithmic=True)
CIRCLE = (
    Slider("margin", "m", -0.2, 0.7),
    SCALE,
    Slider("optimum_p", "O_p", 0.0, 2.0, follows=(1, 1)),
    Slider("optimum_n", "O_n", -1.0, 1.0, follows=(0, -1)),
    Slider("delta_p", "Δ_p", -0.5, 1.5, follows=(1, -1)),
    Slider("delta_n", "Δ_n", -0.5, 1.5, follows=(0, 1)),
)
RATIO = Slider("ratio", "k", 0.1, 10, logarithmic=True)
POWER = Slider("power", "k", 0, 6)
TEMPERATURE = Slider("temperature", "t", 0.01, 1, logarithmic=True)

ENTRIES = (
    Entry(losses.CircleLoss, "Circle Loss", "Circle", CIRCLE, switches=["detach_weights"]),
    Entry(losses.EllipseLoss, "Ellipse", "Circle", (*CIRCLE, RATIO), switches=["detach_weights"]),
    Entry(losses.SuperEllipseLoss, "Super-ellipse", "Circle", (*CIRCLE, POWER), switches=["detach_weights"]),
    Entry(losses.CosFaceLoss, "CosFace, AM-Softmax", "Line", (MARGIN, SCALE)),
    Entry(losses.UnifiedLoss, "Unified loss", "Line", (MARGIN, SCALE)),
    Entry(losses.NormFaceLoss, "NormFace", "Line", (SCALE,)),
    Entry(losses.SoftmaxLoss, "Softmax, N-pair", "Line"),
    Entry(losses.InfoNCELoss, "InfoNCE, NT-Xent, SupCon", "Line", (TEMPERATURE,)),
    Entry(losses.TripletLoss, "Triplet, hinge", "Line", (MARGIN,), {"mining": "hard"}),
    Entry(losses.TripletLoss, "Triplet, soft", "Line", (MARGIN, SCALE), {"mining": "soft"}),
    Entry(losses.LiftedStructureLoss, "Lifted structure", "Line", (MARGIN, SCALE)),
    Entry(losses.ProxyNCALoss, "Proxy-NCA", "Line", (SCALE,)),
    Entry(losses.ArcFaceLoss, "ArcFace", "Angle", (Slider("margin", "m", 0, pi / 2), SCALE)),
    Entry(
        losses.ContrastiveLoss,
        "Contrastive",
        "A threshold for each side",
        (Slider("threshold_p", "positives", -0.5, 1.5), Slider("threshold_n", "negatives", -0.5, 1.5)),
    ),
    Entry(
        losses.MultiSimilarityLoss,
        "Multi-similarity",
        "A threshold for each side",
        (
            Slider("alpha", "α", 0.5, 128, logarithmic=True),
            Slider("beta", "β", 0.5, 128, logarithmic=True),
            Slider("threshold", "λ", -0.5, 1.5),
        ),
    ),
    Entry(
        losses.ProxyAnchorLoss,
        "Proxy-Anchor",
        "A threshold for each side",
        (Slider("margin", "m", -0.5, 0.5), SCALE),
    ),
    Entry(
        losses.SigmoidLoss,
        "Sigmoid, SigLIP",
        "A threshold for each side",
        (Slider("scale", "scale", 0.5, 128, logarithmic=True), Slider("bias", "bias", -20, 20)),
    ),
)
