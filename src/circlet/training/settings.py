"""What the sections of a recipe say besides the classes that they name."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from circlet.data import Normalization
from circlet.data.normalization import NormalizationName
from circlet.errors import CircletError
from circlet.losses import PairLoss
from circlet.models.necks import Side
from circlet.training.checks import check_at_least

ReferencesName = Literal["batch", "memory", "proxies"]


@dataclass
class ImageSettings:
    """How pictures are read.

    Args:
        size: Height and width in pixels that the network sees; one number for a square.
        channels: 1 reads them grey, 3 in colour.
        resize: "crop" keeps a picture's proportions and takes the middle; "stretch" brings all of it to the
            size, as person re-identification does.
        resize_to: Short side that pictures are resized to before the size is cut out, in the middle to
            measure, at random to train: 256 for a size of 224 or 227. Without it there is nothing to cut.
        align: Bring faces to insightface's template by five points that the manifest has, in columns x0, y0
            to x4, y4.
        normalization: The values as published weights expect them, by name; see
            `circlet.data.Normalization`. "half", values from -1 to 1, if there is no mean and std either.
        mean: Instead of a name: subtracted from values in 0 to 1; one number, or one for each channel.
        std: Divided by, after the mean; one number, or one for each channel.
        cache: Keep the decoded pictures in memory (small ones: height * width * channels bytes each).
        workers: Processes that decode and augment; 0 does it in the main one.
        max_broken_share: The run stops when more than this share of the files can't be read.
    """

    size: int | tuple[int, int] = 224
    channels: Literal[1, 3] = 3
    resize: Literal["crop", "stretch"] = "crop"
    resize_to: int | None = None
    align: bool = False
    normalization: NormalizationName | None = None
    mean: float | list[float] | None = None
    std: float | list[float] | None = None
    cache: bool = False
    workers: int = 2
    max_broken_share: float = 0.01

    def __post_init__(self) -> None:
        check_at_least("images", self, workers=0, max_broken_share=0)
        if self.normalization is not None and (self.mean is not None or self.std is not None):
            raise CircletError(
                f"images.normalization = {self.normalization} brings its own mean and std: leave it out, or "
                f"leave out images.mean and images.std"
            )

    def normalizing(self) -> Normalization:
        """The normalisation that these settings name.

        Raises:
            CircletError: A std is not above 0.
        """
        if self.normalization is not None:
            return Normalization.named(self.normalization)
        mean, std = (
            0.5 if value is None else tuple(value) if isinstance(value, list) else value
            for value in (self.mean, self.std)
        )
        return Normalization(mean, std)


# What P and K are chosen to make, where a recipe leaves them to the data.
_BATCH_OF_PICTURES = 64


@dataclass
class BatchSettings:
    """How batches are drawn: P classes with K samples each.

    Args:
        classes: P, classes in a batch, which several processes share. "auto" fits it to the data, see
            `chosen`.
        samples: K, samples of each class. "auto" likewise.
        epoch: "images" shows each picture about once an epoch, "classes" each class once.
        short_classes: What happens to classes with fewer than K pictures: "repeat" some, or "skip" the class.
        rotated_classes: Each class turned by 90, 180 and 270 degrees is a class of its own (four times
            as many), which suits pictures without a top, such as written characters.
        mirrored_classes: Each class seen in a mirror is a class of its own (twice as many).
        accumulate: Batches whose gradients are averaged for one step.
        chunk: The gradient of the whole batch in the memory of so many pictures, for one forward pass more
            (gradient caching); 0 takes the batch at once. Batch normalisation sees a chunk at a time.
    """

    classes: int | Literal["auto"] = 16
    samples: int | Literal["auto"] = 4
    epoch: Literal["images", "classes"] = "images"
    short_classes: Literal["repeat", "skip"] = "repeat"
    rotated_classes: bool = False
    mirrored_classes: bool = False
    accumulate: int = 1
    chunk: int = 0

    def __post_init__(self) -> None:
        given = {name: 1.0 for name in ("classes", "samples") if getattr(self, name) != "auto"}
        check_at_least("batch", self, accumulate=1, chunk=0, **given)

    def chosen(self, pictures_of_class: Sequence[int]) -> tuple[int, int]:
        """P and K, where they are "auto" fitted to the data.

        K is 4, or as many pictures as half of the classes have, if they have fewer, but 2 at least. P fills a
        batch of 64, with as many classes as there are at most; where these are few, K grows instead, again up
        to what half of the classes have.

        Args:
            pictures_of_class: How many there are of each class to train on.
        """
        counts = sorted(pictures_of_class)
        usual = max(2, counts[len(counts) // 2])
        samples = min(4, usual) if self.samples == "auto" else self.samples
        if self.classes != "auto":
            return self.classes, samples
        classes = max(2, min(len(counts), _BATCH_OF_PICTURES // samples))
        if self.samples == "auto":
            samples = max(samples, min(usual, _BATCH_OF_PICTURES // classes))
        return classes, samples


@dataclass
class MemorySettings:
    """The memory of past embeddings that batches are compared with, where references is "memory".

    Args:
        size: How many embeddings are kept.
        warmup: Batches that are compared with themselves alone before, as early embeddings are soon out of
            date.
    """

    size: int = 8192
    warmup: int = 0

    def __post_init__(self) -> None:
        check_at_least("memory", self, size=1, warmup=0)


@dataclass
class ProxySettings:
    """The class proxies, where references is "proxies"; several processes share them.

    Args:
        sample_rate: The share of the classes outside of a batch that take part in a step. Below 1 a step's
            cost follows the sample, which pays from some hundred thousand classes on; `circlet plan` tells.
    """

    sample_rate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sample_rate <= 1:
            raise CircletError(
                f"proxies.sample_rate must be above 0 and at most 1, but got {self.sample_rate}"
            )


@dataclass
class FurtherLoss:
    """A loss that is added to the recipe's first one.

    Args:
        loss: Any loss of `circlet.losses`.
        references: As in the recipe; each loss has proxies or a memory of its own.
        memory, proxies: As in the recipe.
        weight: What the loss is multiplied with in the sum.
        side: As `loss_side` of the recipe.
    """

    loss: PairLoss
    references: ReferencesName = "batch"
    memory: MemorySettings = field(default_factory=MemorySettings)
    proxies: ProxySettings = field(default_factory=ProxySettings)
    weight: float = 1.0
    side: Side = "after"


@dataclass
class EvaluationSettings:
    """When the held-out pictures are measured, and what makes a checkpoint the best.

    Args:
        every: Steps between two measurements; a checkpoint is written at each.
        recall_at: The k of recall@k.
        best_by: The figure whose highest value marks the best checkpoint. "main" is MAP@R, for
            re-identification mAP, for verification the accuracy. "last" takes the last checkpoint, where the
            pictures that are measured must not choose it.
        batch_size: Pictures embedded at once.
        mirrored_views: `circlet evaluate` also measures each picture together with its mirror image; see
            `circlet.models.Views`.
        rotated_views: The same with the picture turned by 90, 180 and 270 degrees; both make eight views.
        combined_views: The views of a picture side by side ("concatenate"), or the "sum" of their embeddings,
            as the protocols of faces have it.
    """

    every: int = 200
    recall_at: Sequence[int] = (1, 2, 4, 8)
    best_by: Literal["main", "recall_at_1", "map_at_r", "mean_average_precision", "last"] = "main"
    batch_size: int = 256
    mirrored_views: bool = False
    rotated_views: bool = False
    combined_views: Literal["concatenate", "sum"] = "concatenate"

    def __post_init__(self) -> None:
        check_at_least("evaluation", self, every=1, batch_size=1)
        if self.best_by == "recall_at_1" and 1 not in self.recall_at:
            raise CircletError(
                f"evaluation.best_by is recall_at_1, but recall_at is {list(self.recall_at)}: add 1"
            )
