"""The recipe: everything that defines a training, as typed parts that YAML and the command line fill."""

import difflib
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning_fabric import Fabric

from circlet.data import Augmentation, DataSource, Normalization
from circlet.data.normalization import NormalizationName
from circlet.errors import CircletError
from circlet.losses import PairLoss
from circlet.models import Embedder
from circlet.models.necks import Side
from circlet.training.checks import check_at_least
from circlet.training.explanation import explained
from circlet.training.optimizer import OptimizerSettings

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
        classes: P, classes in a batch. "auto" fits it to the data, see `chosen`.
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
class FurtherLoss:
    """A loss that is added to the recipe's first one.

    Args:
        loss: Any loss of `circlet.losses`.
        references: As in the recipe; each loss has proxies or a memory of its own.
        memory: As in the recipe.
        weight: What the loss is multiplied with in the sum.
        side: As `loss_side` of the recipe.
    """

    loss: PairLoss
    references: ReferencesName = "batch"
    memory: MemorySettings = field(default_factory=MemorySettings)
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


@dataclass
class Recipe:
    """A whole training.

    Args:
        data: Where the pictures come from.
        embedder: The network.
        loss: Any loss of `circlet.losses`.
        references: What anchors are compared with: the "batch" (pair-wise), the batch and a "memory" of
            past embeddings, or "proxies" (class-level).
        memory: The size of the memory, and when it begins.
        loss_side: Which embeddings the loss takes: those "before" or "after" the normalisation of the neck.
            Searches always take what the neck calls its search side.
        further_losses: Losses that are added to it, each with its own references, weight and side.
        images: How pictures are read.
        augmentation: How training pictures are varied.
        batch: How batches are drawn.
        optimizer: The optimiser and its schedule.
        evaluation: When and how it is measured.
        log_every: Steps between two records of the loss and the similarities.
        seed: Of everything that is random.
        accelerator: "auto", "cpu", "cuda", "mps": where it runs.
        precision: As lightning-fabric names it: "32-true", "16-mixed", "bf16-mixed".
        threads: CPU threads of the main process; 0 leaves torch's choice.
    """

    data: DataSource
    embedder: Embedder
    loss: PairLoss
    references: ReferencesName = "batch"
    memory: MemorySettings = field(default_factory=MemorySettings)
    loss_side: Side = "after"
    further_losses: list[FurtherLoss] = field(default_factory=list)
    images: ImageSettings = field(default_factory=ImageSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    batch: BatchSettings = field(default_factory=BatchSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    log_every: int = 20
    seed: int = 0
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    threads: int = 0

    def __post_init__(self) -> None:
        check_at_least("recipe", self, log_every=1, threads=0)
        pairs = self.references != "proxies" or any(
            one.references != "proxies" for one in self.further_losses
        )
        if pairs and 1 in (self.batch.classes, self.batch.samples):
            raise CircletError(
                f"a batch of {self.batch.classes} x {self.batch.samples} pictures has no positive or no "
                f"negative pairs: batch.classes and batch.samples must be at least 2, unless references is "
                f"proxies"
            )

    def fabric(self) -> Fabric:
        """The device and precision of the training.

        Raises:
            CircletError: This machine has no such accelerator.
        """
        try:
            return Fabric(accelerator=self.accelerator, devices=1, precision=self.precision)
        except RuntimeError as error:
            raise CircletError(f"accelerator {self.accelerator!r}: {error} Use auto or cpu") from error


_SETTINGS = (
    Recipe,
    ImageSettings,
    BatchSettings,
    MemorySettings,
    FurtherLoss,
    OptimizerSettings,
    EvaluationSettings,
    Augmentation,
    Embedder,
)


@dataclass(frozen=True)
class ParsedRecipe:
    """A recipe that was read and checked, before its parts are made.

    Attributes:
        text: The complete recipe as YAML: every default and override written out.
    """

    text: str
    _parser: ArgumentParser
    _values: Namespace

    @property
    def seed(self) -> int:
        return int(self._values.seed)

    def build(self) -> Recipe:
        """Make the parts, with random numbers that follow from the seed alone.

        Raises:
            CircletError: A part refuses its values.
        """
        torch.manual_seed(self.seed)
        try:
            parts = self._parser.instantiate(self._values)
        except (ValueError, TypeError) as error:
            raise CircletError(f"the recipe does not fit: {error}") from error
        return Recipe(**{name: parts[name] for name in Recipe.__dataclass_fields__})


def built_in_recipes() -> list[str]:
    """The names of the recipes that circlet brings."""
    return sorted(path.name.removesuffix(".yaml") for path in _recipe_folder() if path.name.endswith(".yaml"))


def read_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> ParsedRecipe:
    """Read a recipe and lay overrides on top.

    A recipe with the key `base` is another one with changes: what it says takes the place of what its base
    says, key by key; a part with a class of its own takes the place of the whole part.

    Args:
        recipe: A YAML file, or the name of a built-in recipe.
        overrides: As on the command line: ["--loss.margin", "0.4"].

    Raises:
        CircletError: There is no such recipe, or a key or value in it does not fit.
    """
    name = Path(recipe).stem
    parser = recipe_parser()
    try:
        values = parser.parse_object(_content(recipe))
        values = parser.parse_args(list(overrides), namespace=values)
    except (ArgumentError, yaml.YAMLError) as error:
        raise CircletError(f"recipe {name}: {explained(str(error), _SETTINGS)}") from error
    return ParsedRecipe(parser.dump(values), parser, values)


def recipe_parser() -> ArgumentParser:
    """The parser of recipes and overrides, made from the signatures of the parts."""
    parser = ArgumentParser(prog="circlet train RECIPE", exit_on_error=False)
    parser.add_class_arguments(Recipe)
    return parser


def _recipe_folder() -> list[Any]:
    return list(files("circlet.recipes").iterdir())


def _content(recipe: str | Path, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a recipe says, laid over its base.

    Args:
        recipe: A file or the name of a built-in recipe.
        above: The recipes that this one is the base of.
    """
    path = Path(recipe)
    content: dict[str, Any] = yaml.safe_load(_recipe_text(recipe)) or {}
    base = content.pop("base", None)
    if base is None:
        return content
    beside = path.parent / str(base)
    found = beside if path.is_file() and beside.is_file() else Path(base)
    if str(found) in (*above, str(recipe)):
        raise CircletError(f"recipe {recipe} is its own base, by way of {', '.join([*above, str(found)])}")
    laid: dict[str, Any] = _laid_over(_content(found, (*above, str(recipe))), content)
    return laid


def _laid_over(base: Any, changes: Any) -> Any:
    both = isinstance(base, dict) and isinstance(changes, dict)
    if not both or "class_path" in changes:
        return changes
    keys = [*base, *(key for key in changes if key not in base)]
    return {key: _laid_over(base.get(key), changes[key]) if key in changes else base[key] for key in keys}


def _recipe_text(recipe: str | Path) -> str:
    path = Path(recipe)
    if path.is_file():
        return path.read_text()
    for built_in in _recipe_folder():
        if built_in.name == f"{recipe}.yaml":
            return str(built_in.read_text())
    near = difflib.get_close_matches(str(recipe), built_in_recipes(), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise CircletError(
        f"no recipe {str(recipe)!r}: it is neither a file nor one of the built-in ones "
        f"({', '.join(built_in_recipes())}).{hint}"
    )
