"""The training loop, top to bottom."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from torch import Tensor

from circlet.analysis.effective_rank import effective_rank
from circlet.data import Batch
from circlet.errors import CircletError
from circlet.losses import cached_backward
from circlet.report.measured import figure, main_figure
from circlet.training.allocator import peak_megabytes
from circlet.training.checkpoint import Progress, TrainingState
from circlet.training.checkpoint_files import Checkpoints
from circlet.training.console import Console
from circlet.training.embedding import embed
from circlet.training.gradients import Gradients
from circlet.training.learner import Learner
from circlet.training.optimizer import BackboneHold, make_optimizers, set_learning_rate
from circlet.training.parts import Parts
from circlet.training.processes import Processes
from circlet.training.recipe import Recipe
from circlet.training.recording import batch_figures
from circlet.training.replicas import average_buffers, begin_alike
from circlet.training.run import Record, Run, written_whole
from circlet.training.trajectories import Trajectories


def train(
    recipe: Recipe, parts: Parts, run: Run, console: Console, processes: Processes | None = None
) -> None:
    """Train into a run folder; goes on from the run's last checkpoint if there is one.

    Args:
        recipe: What to train.
        parts: Made of it, for this process.
        run: Where to; all processes see it, and the first writes.
        console: Of this process.
        processes: Those that train together; None for one alone.

    Raises:
        CircletError: The checkpoint does not fit, too many pictures are broken, or the loss is not finite.
    """
    processes = processes or Processes()
    fabric = recipe.fabric(processes.local_rank)
    learner, settings = parts.learner, recipe.optimizer
    scaled = recipe.precision == "16-mixed"
    optimizers = make_optimizers(learner.embedder, learner.terms, settings, fused=not scaled)
    _check_precision(scaled, optimizers, processes)
    backbone = BackboneHold(learner.embedder)
    # Channels last in memory: a third quicker on CPUs, and what the tensor cores of GPUs want.
    learner.embedder.to(memory_format=torch.channels_last)
    model, *steppers = fabric.setup(learner, *optimizers)
    begin_alike(learner, processes)
    gradients = Gradients(learner, processes.group)
    progress = Progress()
    trajectories = Trajectories(len(parts.manifest), recipe.seed)
    follows = processes.first and parts.follows_samples
    state = TrainingState(learner, optimizers, fabric.strategy.precision, progress, trajectories)
    checkpoints = Checkpoints(run.checkpoints)
    resumed = checkpoints.has("last")
    if resumed:
        state.load(checkpoints.path("last"))
        console.say(f"going on from step {progress.step} of {settings.steps}")
    elif processes.count > 1:
        torch.manual_seed(recipe.seed + 1 + processes.rank)
    if processes.first:
        run.rewind(progress.step if resumed else -1)
    records = Records(run, writes=processes.first)

    def measure() -> None:
        average_buffers(learner.embedder, processes)
        embedded = embed(
            learner.embedder,
            parts.held_out_images,
            batch_size=recipe.evaluation.batch_size,
            workers=recipe.images.workers,
            device=fabric.device,
            processes=processes,
        )
        value = -math.inf
        broken = parts.held_out_broken.add(embedded.broken)
        if processes.first:
            console.broken(broken)
            measured = parts.held_out.measured(embedded, tuple(recipe.evaluation.recall_at)).figures
            at = {"step": progress.step, "seconds": progress.seconds, "cpu_seconds": progress.cpu_seconds}
            at["peak_megabytes"] = peak_megabytes(fabric.device)
            rank = effective_rank(embedded.embeddings)
            records.add({"kind": "evaluation", **at, **measured, "effective_rank": rank})
            console.measured(progress.step, progress.seconds, measured)
            value = _figure(recipe.evaluation.best_by, measured, progress.step)
            # These are written before the last, so that no resumed run believes in one that is not there.
            with written_whole(run.trajectories) as path:
                trajectories.save(path)
        value = processes.of_first(value)
        best = value > progress.best
        progress.best = max(value, progress.best)
        checkpoints.write(progress.step, ("best", "last") if best else ("last",), state.tensors())

    def backward(batch: Batch) -> Tensor:
        """Add the gradients of one of a step's batches; returns its loss."""
        images = batch.images.to(fabric.device, memory_format=torch.channels_last)
        labels = batch.labels.to(fabric.device)
        with fabric.autocast(), _stopping(progress, run.checkpoints):
            loss, _ = cached_backward(
                learner.network if len(images) else learner.nothing,
                _chunks(images, recipe.batch.chunk),
                lambda outputs: learner.loss(outputs, labels),
                backward=lambda loss: fabric.backward(loss / recipe.batch.accumulate),
            )
        return loss

    if not resumed:
        measure()
    model.train()
    batches = endless(parts, progress)
    with console.progress(settings.steps, progress.step) as bar:
        while progress.step < settings.steps:
            before = progress.seconds
            recorded = progress.step == 0 or (progress.step + 1) % recipe.log_every == 0
            recorded = recorded and processes.first
            set_learning_rate(optimizers, settings, progress.step)
            backbone.set(progress.step < settings.frozen_backbone_steps)
            loss = 0.0
            for _ in range(recipe.batch.accumulate):
                with _timed(progress):
                    batch = next(batches)
                    console.broken(parts.broken.add(batch.broken))
                    loss += backward(batch).item() / recipe.batch.accumulate
                # Before the step, which moves proxies in place.
                assert learner.seen is not None
                call = learner.seen
                if follows:
                    trajectories.see(progress.step + 1, batch.indices, *call)
            seen = batch_figures(*call) if recorded else {}
            if recorded and len(learner.values) > 1:
                seen["losses"] = _by_name(learner)
            with _timed(progress):
                gradients.put_together()
                norm = _clip(fabric, gradients, optimizers, settings.clip_norm)
                for stepper in steppers:
                    stepper.step()
                    stepper.zero_grad()
            progress.step += 1
            took = progress.seconds - before

            if progress.step == 1 and processes.first:
                expected = parts.expected_initial_loss()
                records.add({"kind": "start", "step": 1, "expected_loss": expected, "first_loss": loss})
                console.first_loss(loss, expected)
            if recorded:
                record = {
                    "kind": "train",
                    "step": progress.step,
                    "epoch": progress.epoch,
                    "seconds": progress.seconds,
                    "cpu_seconds": progress.cpu_seconds,
                    "loss": loss,
                    "learning_rate": optimizers[0].param_groups[0]["lr"],
                    "gradient_norm": norm,
                    "images_per_second": recipe.batch.accumulate * math.prod(parts.batch_shape) / took,
                    **seen,
                }
                records.add(record)
                bar.update(record)
            if progress.step % recipe.evaluation.every == 0 or progress.step == settings.steps:
                measure()
    records.close()


def _check_precision(scaled: bool, optimizers: Sequence[torch.optim.Optimizer], processes: Processes) -> None:
    if scaled and (processes.count > 1 or len(optimizers) > 1):
        raise CircletError(
            "precision 16-mixed scales the gradients of one optimiser in one process: with several processes "
            "or a sample of the proxies take bf16-mixed or 32-true"
        )


@contextmanager
def _timed(progress: Progress) -> Iterator[None]:
    """Counts the time inside as training; what is recorded beside it is left out."""
    started, processor = time.perf_counter(), time.process_time()
    yield
    progress.seconds += time.perf_counter() - started
    progress.cpu_seconds += time.process_time() - processor


def _figure(name: str, measured: Record, step: int) -> float:
    """What marks the best checkpoint: the highest of these."""
    if name == "last":
        return step
    return main_figure(measured) if name == "main" else figure(measured, name)


def _by_name(learner: Learner) -> dict[str, float]:
    """The value of each loss in the last batch, before its weight; a second one of a kind is "NAME 2"."""
    values: dict[str, float] = {}
    for term, value in zip(learner.each_term(), learner.values, strict=True):
        name = type(term.criterion).__name__
        alike = sum(other.split()[0] == name for other in values)
        values[f"{name} {alike + 1}" if alike else name] = value.item()
    return values


def _clip(
    fabric: Fabric, gradients: Gradients, optimizers: Sequence[torch.optim.Optimizer], largest: float
) -> float:
    """Scale the gradients down to a norm of at most `largest` (0: leave them); returns their norm before."""
    precision = fabric.strategy.precision
    if getattr(precision, "scaler", None) is not None:
        for optimizer in optimizers:
            precision.unscale_gradients(optimizer)
    norm = gradients.norm()
    # What is no number stays, for the loss scale to shrink.
    if largest and norm > largest:
        gradients.scale(largest / (norm + 1e-6))
    return norm


def endless(parts: Parts, progress: Progress) -> Iterator[Batch]:
    """Batches from where the progress stands, epoch after epoch; counts each batch as it is handed out."""
    while True:
        parts.sampler.load_state_dict({"epoch": progress.epoch, "batch": progress.batch})
        for batch in parts.batches:
            progress.batch += 1
            yield batch
        progress.epoch, progress.batch = progress.epoch + 1, 0


class Records:
    """Writes each record to metrics.jsonl, and its numbers to TensorBoard.

    Args:
        run: Where to.
        writes: Whether this process does it at all.
    """

    def __init__(self, run: Run, *, writes: bool = True) -> None:
        self._run = run
        self._writes = writes
        self._tensorboard = TensorBoardLogger(run.folder, name="", version="tensorboard")

    def add(self, record: Record) -> None:
        if not self._writes:
            return
        self._run.append(record)
        self._tensorboard.log_metrics(_scalars(record["kind"], record), step=record["step"])

    def close(self) -> None:
        if self._writes:
            self._tensorboard.finalize("success")


def _scalars(prefix: str, values: dict[str, Any]) -> dict[str, float]:
    """The numbers of a nested record under names such as train/positive/mean."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _scalars(f"{prefix}/{name}", value)
        elif isinstance(value, int | float) and name != "step":
            flat[f"{prefix}/{name}"] = value
    return flat


def _chunks(images: Tensor, largest: int) -> Sequence[Tensor]:
    """The pictures in parts of nearly equal size, at most `largest` (0: in one part)."""
    parts = max(1, -(-len(images) // largest)) if largest else 1
    return images.tensor_split(parts)


@contextmanager
def _stopping(progress: Progress, checkpoints: Path) -> Iterator[None]:
    """A loss or an embedding that is not finite stops the run before any harm."""
    try:
        yield
    except ValueError as error:
        raise CircletError(
            f"training stopped at step {progress.step + 1}: {error}. Lower optimizer.learning_rate, "
            f"lengthen optimizer.warmup_steps, set optimizer.clip_norm (say 10), or use precision 32-true. "
            f"The last good checkpoint is in {checkpoints}"
        ) from error
