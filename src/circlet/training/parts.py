"""From a recipe to the parts of a training: pictures, batches, learner, held-out pictures."""

from dataclasses import dataclass
from functools import cached_property

from torch import nn
from torch.utils.data import DataLoader

from circlet.data import Batch, BrokenImages, ImageDataset, Manifest, PKSampler, load
from circlet.errors import CircletError
from circlet.references import Memory, Proxies
from circlet.training.evaluation import HeldOut
from circlet.training.learner import Learner
from circlet.training.recipe import Recipe


@dataclass(frozen=True)
class Parts:
    """All that the loop works with.

    Attributes:
        learner: Network, loss and references.
        manifest: The training pictures.
        sampler: Draws the batches.
        batches: Loads them; begins at the sampler's position whenever it is iterated.
        broken: Counts the training files that can't be read.
        held_out: The pictures that are measured, and how.
        held_out_images: The same as a data set.
        held_out_broken: Counts the held-out files that can't be read.
    """

    recipe: Recipe
    learner: Learner
    manifest: Manifest
    sampler: PKSampler
    batches: DataLoader[Batch]
    broken: BrokenImages
    held_out: HeldOut
    held_out_images: ImageDataset
    held_out_broken: BrokenImages

    @cached_property
    def num_classes(self) -> int:
        return len(self.manifest.label_ids()[1])

    def describe(self) -> str:
        """One line that says what is trained on what."""
        parameters = sum(p.numel() for p in self.learner.embedder.parameters())
        held_out = self.held_out.manifest
        return (
            f"{len(self.manifest):,} training pictures of {self.num_classes:,} classes, "
            f"{len(held_out):,} held out of {len(held_out.label_ids()[1]):,} others "
            f"({self.held_out.protocol}); {parameters:,} parameters{self._short_classes()}"
        )

    def _short_classes(self) -> str:
        if self.sampler.short == 0:
            return ""
        classes = "1 class has" if self.sampler.short == 1 else f"{self.sampler.short:,} classes have"
        done = {"skip": "left out", "repeat": "repeated"}[self.recipe.batch.short_classes]
        return f"; {classes} fewer than {self.recipe.batch.samples} pictures: {done}"

    def expected_initial_loss(self) -> float:
        """What the first loss should be for embeddings spread at random; a memory is then still empty."""
        if self.recipe.references == "proxies":
            return self.learner.criterion.expected_initial_loss(1, self.num_classes - 1)
        samples = self.recipe.batch.samples
        return self.learner.criterion.expected_initial_loss(
            samples - 1, (self.recipe.batch.classes - 1) * samples
        )


def make_parts(recipe: Recipe) -> Parts:
    """Make the parts of a training; nothing is trained or written yet.

    Raises:
        CircletError: The data does not fit the recipe: no pictures, too few classes, files missing.
    """
    everything = recipe.data.manifest()
    manifest = everything.split("train")
    if len(manifest) == 0:
        raise CircletError("there is nothing to train on: no picture of the manifest has the split 'train'")
    everything.check_files()
    if recipe.batch.mirrored_classes:
        manifest = manifest.with_mirror_images()
    if recipe.batch.rotated_classes:
        manifest = manifest.with_rotations()
    held_out = HeldOut.of(everything)
    images = image_dataset(recipe, manifest, training=True)
    labels, classes = manifest.label_ids()
    sampler = PKSampler(
        labels,
        recipe.batch.classes,
        recipe.batch.samples,
        epoch=recipe.batch.epoch,
        short_classes=recipe.batch.short_classes,
        seed=recipe.seed,
    )
    return Parts(
        recipe=recipe,
        learner=Learner(recipe.embedder, recipe.loss, _references(recipe, len(classes))),
        manifest=manifest,
        sampler=sampler,
        batches=load(images, sampler, workers=recipe.images.workers),
        broken=BrokenImages(manifest, recipe.images.max_broken_share),
        held_out=held_out,
        held_out_images=image_dataset(recipe, held_out.manifest, training=False),
        held_out_broken=BrokenImages(held_out.manifest, recipe.images.max_broken_share),
    )


def _references(recipe: Recipe, classes: int) -> nn.Module | None:
    dim = recipe.embedder.embedding_dim
    if recipe.references == "proxies":
        return Proxies(classes, dim)
    if recipe.references == "memory":
        return Memory(recipe.memory.size, dim, warmup=recipe.memory.warmup)
    return None


def image_dataset(recipe: Recipe, manifest: Manifest, *, training: bool) -> ImageDataset:
    """The pictures of a manifest as the recipe reads them; augmented only for training.

    Raises:
        CircletError: The network takes other channels than the recipe reads.
    """
    expected = recipe.embedder.backbone.in_channels
    if expected != recipe.images.channels:
        raise CircletError(
            f"the recipe reads pictures with images.channels = {recipe.images.channels}, but the backbone "
            f"takes in_channels = {expected}: make images.channels and embedder.backbone.in_channels equal"
        )
    return ImageDataset(
        manifest,
        size=recipe.images.size,
        channels=recipe.images.channels,
        mean=recipe.images.mean,
        std=recipe.images.std,
        augmentation=recipe.augmentation if training else None,
        cache=recipe.images.cache,
    )
