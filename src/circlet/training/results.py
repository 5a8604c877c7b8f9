"""What is made of a run when it has ended: results, embeddings, similarities, the page."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from circlet.data import ImageDataset, load
from circlet.errors import CircletError
from circlet.models import Views
from circlet.report import write_report
from circlet.report.run_files import RunFiles
from circlet.training.checkpoint import load_model
from circlet.training.checkpoint_files import Checkpoints
from circlet.training.console import Console
from circlet.training.embedding import Embedded, RawPixels, embed
from circlet.training.monitor import BatchPairs, batch_pairs
from circlet.training.parts import Parts, image_dataset, make_parts
from circlet.training.recipe import ParsedRecipe, Recipe, read_recipe
from circlet.training.run import Record, Run, written_whole

# Training pairs that are kept for the page's histogram and plane.
_MOST_ANCHORS = 2048
_MOST_PAIRS = 20_000


def evaluate_run(run: Run, console: Console, parsed: ParsedRecipe | None = None) -> Record:
    """Measure a run's best checkpoint beside the untrained network and raw pixels.

    Writes results.json, embeddings.npz and similarities.npz into the run's folder.

    Args:
        run: The run.
        console: Says which pictures can't be read.
        parsed: The run's recipe, where it was read already.

    Returns:
        What results.json holds.

    Raises:
        CircletError: The run has no checkpoint, or one of another model.
    """
    checkpoints = Checkpoints(run.checkpoints)
    if not checkpoints.has("best"):
        raise CircletError(f"{run.folder} has nothing to measure yet: `circlet train {run.folder}` trains it")
    recipe = (parsed or read_recipe(run.config)).build()
    parts = make_parts(recipe)
    device = recipe.fabric().device
    parts.learner.to(device)
    recall_at = tuple(recipe.evaluation.recall_at)
    images, held_out = parts.held_out_images, parts.held_out

    def embedded_by(embedder: nn.Module) -> Embedded:
        size, workers = recipe.evaluation.batch_size, recipe.images.workers
        return embed(embedder, images, batch_size=size, workers=workers, device=device)

    untrained = held_out.measured(embedded_by(parts.learner.embedder), recall_at)
    raw_pixels = held_out.measured(embedded_by(RawPixels(recipe.images.normalizing())), recall_at)
    progress = load_model(checkpoints.path("best"), parts.learner)
    embedded = embedded_by(parts.learner.embedder)
    console.broken(parts.held_out_broken.add(embedded.broken))
    trained = held_out.measured(embedded, recall_at)
    settings = recipe.evaluation
    views = Views(
        parts.learner.embedder,
        mirrored=settings.mirrored_views,
        rotated=settings.rotated_views,
        combine=settings.combined_views,
    )

    labels, classes = held_out.manifest.label_ids()
    splits = np.array(held_out.manifest.table["split"].to_list())
    paths = np.array([str(path) for path in held_out.manifest.paths()])
    rows = embedded.rows.numpy()
    table = held_out.manifest.table
    cameras = {}
    if "camera" in table.columns:
        cameras["cameras"] = np.array([str(camera or "") for camera in table["camera"].to_list()])[rows]
    with written_whole(run.embeddings) as path:
        np.savez(
            path,
            **cameras,
            embeddings=torch.nn.functional.normalize(embedded.embeddings).numpy(),
            labels=labels[embedded.rows].numpy(),
            paths=paths[rows],
            role=splits[rows],
            class_names=np.array(classes),
        )
    _write_similarities(run, recipe, parts, device)
    results: Record = {
        "protocol": held_out.protocol,
        "images": len(rows),
        "classes": len(classes),
        "queries": trained.queries,
        "skipped_queries": trained.skipped_queries,
        "broken_images": len(embedded.broken),
        "checkpoint": "best",
        "step": progress.step,
        "train_seconds": progress.seconds,
        "trained": trained.figures,
        "untrained": untrained.figures,
        "raw_pixels": raw_pixels.figures,
    }
    if views.number > 1:
        results["views"] = views.number
        results["trained_in_views"] = held_out.measured(embedded_by(views), recall_at).figures
    # With the boundary as it was learned, where it learns.
    boundary = parts.learner.first.criterion.cpu().boundary
    results["convergence"] = RunFiles.read(run.folder).convergence(boundary).to_dict()
    run.write_results(results)
    return results


def report_run(run: Run, parsed: ParsedRecipe | None = None) -> Path:
    """Write the page of a run with the decision boundary of its loss; returns its path.

    Args:
        run: The run.
        parsed: Its recipe, where it was read already.
    """
    return write_report(run.folder, (parsed or read_recipe(run.config)).build().loss.boundary)


@torch.no_grad()
def _write_similarities(run: Run, recipe: Recipe, parts: Parts, device: torch.device) -> None:
    """Training pairs as the loss sees them at the end: batches of the sampler, without augmentation."""
    parts.learner.eval()
    first = parts.learner.first
    dataset: ImageDataset = image_dataset(recipe, parts.manifest, training=False)
    seen: list[BatchPairs] = []
    hardest: list[tuple[torch.Tensor, torch.Tensor]] = []
    for batch in load(dataset, parts.sampler, workers=0):
        labels = batch.labels.to(device)
        before, after = parts.learner.embedder.both_sides(batch.images.to(device))
        embeddings = before if first.side == "before" else after
        seen.append(batch_pairs(first.criterion, embeddings, labels, first.references))
        hardest.append(seen[-1].hardest())
        if sum(len(negative) for negative, _ in hardest) >= _MOST_ANCHORS:
            break
    generator = torch.Generator().manual_seed(recipe.seed)

    def sample(parts_of_side: list[torch.Tensor]) -> np.ndarray:
        values = torch.cat(parts_of_side).float().cpu()
        order = torch.randperm(len(values), generator=generator)[:_MOST_PAIRS]
        return values[order].numpy()

    with written_whole(run.similarities) as path:
        np.savez(
            path,
            anchor_positive=torch.cat([positive for _, positive in hardest]).float().cpu().numpy(),
            anchor_negative=torch.cat([negative for negative, _ in hardest]).float().cpu().numpy(),
            positive=sample([pairs.positive for pairs in seen]),
            negative=sample([pairs.negative for pairs in seen]),
        )
