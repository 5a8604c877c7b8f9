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

from circlet.data import Augmentation, DataSource
from circlet.errors import CircletError
from circlet.losses import PairLoss
from circlet.models import Embedder
from circlet.models.necks import Side
from circlet.training.checks import check_at_least
from circlet.training.explanation import explained
from circlet.training.optimizer import OptimizerSettings
from circlet.training.settings import (
    BatchSettings,
    EvaluationSettings,
    FurtherLoss,
    ImageSettings,
    MemorySettings,
    ProxySettings,
    ReferencesName,
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
        proxies: How many of the proxies take part in a step.
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
    proxies: ProxySettings = field(default_factory=ProxySettings)
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

    def fabric(self, place: int = 0) -> Fabric:
        """The device and precision of the training.

        Args:
            place: Which of the machine's devices, where it has several and each process takes one.

        Raises:
            CircletError: This machine has no such accelerator.
        """
        gpu = self.accelerator in ("auto", "cuda") and torch.cuda.is_available()
        devices = [place] if gpu else 1
        try:
            return Fabric(accelerator=self.accelerator, devices=devices, precision=self.precision)
        except RuntimeError as error:
            raise CircletError(f"accelerator {self.accelerator!r}: {error} Use auto or cpu") from error


_SETTINGS = (
    Recipe,
    ImageSettings,
    BatchSettings,
    MemorySettings,
    ProxySettings,
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
        except CircletError:
            raise
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
    near = difflib.get_close_matches(str(recipe), built_in_recipes(), n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise CircletError(
        f"no recipe {str(recipe)!r}: it is neither a file nor one of the built-in ones, which `circlet train "
        f"--help` lists.{hint}"
    )
