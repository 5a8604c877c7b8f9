"""What recording costs, as a share of a training step.

    python benchmarks/recording.py [RECIPE] [--key value ...]

Trains the recipe (default: glyphs) on one thread. Blocks of `log_every` steps with recording and without take
turns within one training, so that what other jobs on the machine take falls on both. Printed are the
processor time of a step of either kind, the median of the ratios of neighbouring blocks, and what the parts
of recording take.
"""

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from circlet.analysis.effective_rank import effective_rank
from circlet.training.allocator import keep_freed_memory
from circlet.training.checkpoint import Progress
from circlet.training.loop import Records, endless
from circlet.training.monitor import batch_pairs, summary
from circlet.training.optimizer import make_optimizers, set_learning_rate
from circlet.training.pair_gradients import gradient_figures
from circlet.training.parts import make_parts
from circlet.training.recipe import Recipe, read_recipe
from circlet.training.recording import batch_figures
from circlet.training.run import Run
from circlet.training.trajectories import Trajectories

BLOCKS, WARMUP = 70, 3

Seconds = dict[str, list[float]]


@contextmanager
def timed(seconds: Seconds, name: str, shared_by: int = 1) -> Iterator[None]:
    started = time.process_time()
    yield
    seconds[name].append((time.process_time() - started) / shared_by)


def train(recipe: Recipe, folder: Path) -> Seconds:
    """Processor seconds by name, a value for each time."""
    parts = make_parts(recipe)
    learner, progress = parts.learner, Progress()
    learner.embedder.to(memory_format=torch.channels_last)
    (optimizer,) = make_optimizers(learner.embedder, learner.terms, recipe.optimizer, fused=True)
    trajectories, records = Trajectories(len(parts.manifest), recipe.seed), Records(Run(folder))
    batches = endless(parts, progress)
    learner.train()

    seconds: Seconds = defaultdict(list)
    for block in range(BLOCKS):
        recording = block % 2 == 1
        with timed(seconds, "with" if recording else "without", shared_by=recipe.log_every):
            for _ in range(recipe.log_every):
                set_learning_rate([optimizer], recipe.optimizer, progress.step)
                batch = next(batches)
                images = batch.images.to(memory_format=torch.channels_last)
                embeddings = learner.embedder(images)
                loss = learner.loss(embeddings, batch.labels)
                loss.backward()
                value = loss.item()
                call = learner.seen
                assert call is not None
                progress.step += 1
                if recording:
                    with timed(seconds, "sight"):
                        trajectories.see(progress.step, batch.indices, *call)
                    if progress.step % recipe.log_every == 0:
                        with timed(seconds, "record"):
                            figures = batch_figures(*call)
                            records.add({"kind": "train", "step": progress.step, "loss": value, **figures})
                optimizer.step()
                optimizer.zero_grad()
        if not recording:
            with timed(seconds, "similarities"):
                pairs = batch_pairs(*call)
            with timed(seconds, "quantiles"):
                summary(pairs.positive), summary(pairs.negative)
            with timed(seconds, "gradients"):
                gradient_figures(call.criterion, pairs)
            with timed(seconds, "effective rank"):
                effective_rank(pairs.embeddings)
    records.close()
    return seconds


def main() -> None:
    recipe = read_recipe(sys.argv[1] if len(sys.argv) > 1 else "glyphs", sys.argv[2:]).build()
    torch.set_num_threads(1)
    keep_freed_memory()
    with TemporaryDirectory() as folder:
        seconds = train(recipe, Path(folder))
    pairs = list(zip(seconds["without"], seconds["with"], strict=True))[WARMUP:]
    ratio = statistics.median(recorded / without for without, recorded in pairs)
    milliseconds = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    without = milliseconds["without"]
    print(f"a step without recording {without:.2f} ms, with {milliseconds['with']:.2f} ms: ratio {ratio:.4f}")
    # Some sights wait for others, and are taken in with them: the mean counts all.
    sight = 1000 * statistics.mean(seconds["sight"])
    share = (sight + milliseconds["record"] / recipe.log_every) / without
    print(
        f"recording alone: {sight:.2f} ms at each step and {milliseconds['record']:.2f} ms at every "
        f"{recipe.log_every}-th, {100 * share:.2f} % of a step"
    )
    for name in ("similarities", "quantiles", "gradients", "effective rank"):
        print(f"  {name}: {milliseconds[name]:.2f} ms")


if __name__ == "__main__":
    main()
