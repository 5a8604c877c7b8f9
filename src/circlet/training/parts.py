"""From a recipe to the parts of a training: pictures, batches, learner, held-out pictures."""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader

from circlet.data import Batch, BrokenImages, ImageDataset, Manifest, PKSampler, load
from circlet.errors import CircletError
from circlet.references import Memory, Proxies
from circlet.training.held_out import HeldOut
from circlet.training.learner import Learner, Term
from circlet.training.processes import Processes
from circlet.training.recipe import Recipe
from circlet.training.settings import FurtherLoss


@dataclass(frozen=True)
class Parts:
    """All that the loop works with.

    Attributes:
        learner: Network, loss and references.
        manifest: The training pictures.
        sampler: Draws the batches.
        batches: Loads them; begins at the sampler's position whenever it is iterated.
        batch_shape: P and K, classes of a batch and samples of each.
        broken: Counts the training files that can't be read.
        held_out: The pictures that are measured, and how.
        held_out_images: The same as a data set.
        held_out_broken: Counts the held-out files that can't be read.
        notes: What the source says of its pictures: what it left out, how many should be there.
    """

    recipe: Recipe
    learner: Learner
    manifest: Manifest
    sampler: PKSampler
    batches: DataLoader[Batch]
    batch_shape: tuple[int, int]
    broken: BrokenImages
    held_out: HeldOut
    held_out_images: ImageDataset
    held_out_broken: BrokenImages
    notes: tuple[str, ...]

    @cached_property
    def num_classes(self) -> int:
        return len(self.manifest.label_ids()[1])

    @property
    def follows_samples(self) -> bool:
        """Whether this process sees all pairs of its anchors, and not those with its own proxies alone."""
        references = self.learner.first.references
        return not (isinstance(references, Proxies) and references.process_group is not None)

    def describe(self) -> str:
        """One line that says what is trained on what."""
        parameters = sum(p.numel() for p in self.learner.embedder.parameters())
        held_out = self.held_out.manifest
        classes, samples = self.batch_shape
        return (
            f"{len(self.manifest):,} training pictures of {self.num_classes:,} classes, "
            f"{len(held_out):,} held out of {len(held_out.label_ids()[1]):,} others "
            f"({self.held_out.protocol}); batches of {classes} classes x {samples} pictures; "
            f"{parameters:,} parameters{self._short_classes()}"
        )

    def _short_classes(self) -> str:
        if self.sampler.short == 0:
            return ""
        classes = "1 class has" if self.sampler.short == 1 else f"{self.sampler.short:,} classes have"
        done = {"skip": "left out", "repeat": "repeated"}[self.recipe.batch.short_classes]
        return f"; {classes} fewer than {self.batch_shape[1]} pictures: {done}"

    def expected_initial_loss(self) -> float:
        """What the first loss should be for embeddings spread at random; a memory is then still empty."""
        classes, samples = self.batch_shape

        def counts(references: nn.Module | None) -> tuple[int, int]:
            if isinstance(references, Proxies):
                others = self.num_classes - classes
                return 1, classes - 1 + round(references.sample_rate * others)
            return samples - 1, (classes - 1) * samples

        return sum(
            term.weight * term.criterion.expected_initial_loss(*counts(term.references))
            for term in self.learner.each_term()
        )


def make_parts(recipe: Recipe, processes: Processes | None = None) -> Parts:
    """Make the parts of a training; nothing is trained or written yet.

    Args:
        recipe: What to make.
        processes: Those that train together, each with its parts; None for one alone.

    Raises:
        CircletError: The data does not fit the recipe: no pictures, too few classes, files missing.
    """
    processes = processes or Processes()
    everything = recipe.data.manifest()
    manifest = everything.split("train")
    if len(manifest) == 0:
        raise CircletError("there is nothing to train on: no picture of the manifest has the split 'train'")
    if len(names := everything.label_ids()[1]) < 2:
        raise CircletError(
            f"all pictures are of one class, {names[0]!r}: there must be two to tell apart, and others to "
            f"measure with; in a folder each class has a folder of its own"
        )
    everything.check_files()
    if recipe.batch.mirrored_classes:
        manifest = manifest.with_mirror_images()
    if recipe.batch.rotated_classes:
        manifest = manifest.with_rotations()
    held_out = HeldOut.of(everything)
    images = image_dataset(recipe, manifest, training=True)
    labels, names = manifest.label_ids()
    classes, samples = recipe.batch.chosen(torch.bincount(labels).tolist())
    sampler = PKSampler(
        labels,
        classes,
        samples,
        epoch=recipe.batch.epoch,
        short_classes=recipe.batch.short_classes,
        seed=recipe.seed,
        rank=processes.rank,
        world_size=processes.count,
    )
    return Parts(
        recipe=recipe,
        learner=Learner(recipe.embedder, _terms(recipe, len(names), processes.group)),
        manifest=manifest,
        sampler=sampler,
        batches=load(images, sampler, workers=recipe.images.workers),
        batch_shape=(classes, samples),
        broken=BrokenImages(manifest, recipe.images.max_broken_share),
        held_out=held_out,
        held_out_images=image_dataset(recipe, held_out.manifest, training=False),
        held_out_broken=BrokenImages(held_out.manifest, recipe.images.max_broken_share),
        notes=everything.notes,
    )


def _terms(recipe: Recipe, classes: int, group: dist.ProcessGroup | None) -> list[Term]:
    """The losses of a recipe, the first one first, with references of their own."""
    dim = recipe.embedder.embedding_dim

    def references(one: Recipe | FurtherLoss) -> nn.Module | None:
        if one.references == "proxies":
            rate = one.proxies.sample_rate
            return Proxies(classes, dim, sample_rate=rate, process_group=group, gradients="sum")
        memory = one.memory
        return Memory(memory.size, dim, warmup=memory.warmup) if one.references == "memory" else None

    first = Term(recipe.loss, references(recipe), side=recipe.loss_side, group=group)
    further = [
        Term(one.loss, references(one), weight=one.weight, side=one.side, group=group)
        for one in recipe.further_losses
    ]
    return [first, *further]


def image_dataset(recipe: Recipe, manifest: Manifest, *, training: bool) -> ImageDataset:
    """The pictures of a manifest as the recipe reads them; augmented only for training.

    Raises:
        CircletError: The network takes other channels than the recipe reads, or settings of the pictures do
            not fit each other.
    """
    expected = recipe.embedder.backbone.in_channels
    if expected != recipe.images.channels:
        raise CircletError(
            f"the recipe reads pictures with images.channels = {recipe.images.channels}, but the backbone "
            f"takes in_channels = {expected}: make images.channels and embedder.backbone.in_channels equal"
        )
    size = recipe.images.size
    if recipe.evaluation.rotated_views and not isinstance(size, int) and size[0] != size[1]:
        raise CircletError(
            f"pictures of {size[0]} x {size[1]} pixels can't be turned by 90 degrees: set "
            f"evaluation.rotated_views to false, or make images.size square"
        )
    return ImageDataset(
        manifest,
        size=size,
        channels=recipe.images.channels,
        resize=recipe.images.resize,
        resize_to=recipe.images.resize_to,
        align=recipe.images.align,
        normalization=recipe.images.normalizing(),
        augmentation=recipe.augmentation if training else None,
        cache=recipe.images.cache,
    )
