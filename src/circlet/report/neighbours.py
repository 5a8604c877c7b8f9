"""A few queries with their nearest neighbours, and the pictures of both."""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from circlet.report.run_files import Arrays

SEARCHED_QUERIES = 5000
CHUNK = 256
THUMBNAIL = 160


@dataclass(frozen=True)
class Neighbour:
    """One gallery image in the ranking of a query."""

    row: int
    similarity: float
    right: bool


@dataclass(frozen=True)
class Query:
    """One query and its nearest neighbours, nearest first.

    Attributes:
        row: its row in embeddings.npz.
        neighbours: the nearest first.
        worst: chosen as one of the worst mistakes, not at random.
    """

    row: int
    neighbours: list[Neighbour]
    worst: bool


def choose_queries(arrays: Arrays, *, count: int = 12, neighbours: int = 8, seed: int = 0) -> list[Query]:
    """Half of the queries at random, half those whose nearest neighbour is wrong by most.

    Queries are ranked against the gallery where the arrays name roles "query" and "gallery", and else every
    image against all others. "By most" is the similarity of the nearest neighbour less that of the nearest
    image of the right class. Queries without any image of their class to find are left out, and so are
    embeddings that are not finite. At most 5,000 queries are searched.

    Args:
        arrays: `embeddings` (N, D) with unit rows, `labels` (N,) and `role` (N,) of embeddings.npz.
        count: number of queries; random ones fill up where there are fewer mistakes than half.
        neighbours: neighbours of each query.
        seed: draws the random queries.

    Returns:
        The mistakes first, the worst at the top, then the random ones.
    """
    embeddings = torch.from_numpy(np.asarray(arrays["embeddings"], dtype=np.float32))
    labels = torch.from_numpy(np.asarray(arrays["labels"], dtype=np.int64))
    role, finite = arrays["role"], embeddings.isfinite().all(dim=1).numpy()
    by_role = bool(np.any(role == "query"))
    query_rows = np.flatnonzero(finite & (role == "query") if by_role else finite)
    gallery = torch.from_numpy(np.flatnonzero(finite & (role == "gallery") if by_role else finite))
    if not len(query_rows) or not len(gallery):
        return []

    gallery_embeddings, gallery_labels = embeddings[gallery], labels[gallery]
    random = np.random.default_rng(seed)
    searched = torch.from_numpy(random.permutation(query_rows)[:SEARCHED_QUERIES])
    found: list[tuple[int, list[Neighbour]]] = []
    mistakes: list[tuple[float, int]] = []
    for rows in torch.split(searched, CHUNK):
        similarity = embeddings[rows] @ gallery_embeddings.T
        itself = rows[:, None] == gallery[None, :]
        similarity.masked_fill_(itself, -torch.inf)
        right = (labels[rows][:, None] == gallery_labels[None, :]) & ~itself
        ranked, positions = similarity.topk(min(neighbours, len(gallery)), dim=1)
        best_right = similarity.masked_fill(~right, -torch.inf).amax(dim=1)
        for i in torch.nonzero(right.any(dim=1)).flatten().tolist():
            listed = zip(
                gallery[positions[i]].tolist(),
                ranked[i].tolist(),
                right[i, positions[i]].tolist(),
                strict=True,
            )
            nearest = [Neighbour(*neighbour) for neighbour in listed if neighbour[1] > -math.inf]
            if not nearest[0].right:
                mistakes.append((float(ranked[i, 0] - best_right[i]), len(found)))
            found.append((int(rows[i]), nearest))

    mistakes.sort(key=lambda mistake: -mistake[0])
    worst = [place for _, place in mistakes[: count // 2]]
    others = [place for place in range(len(found)) if place not in worst][: count - len(worst)]
    return [Query(*found[place], place in worst) for place in worst + others]


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: its data URI, and whether it is small enough for crisp pixels."""

    uri: str
    crisp: bool


def picture(path: Path) -> Picture | None:
    """Read an image file and make it at most 160 pixels wide and high.

    Args:
        path: the image file.

    Returns:
        The picture as WebP; None where the file is gone or is no picture.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    crisp = max(image.size) <= THUMBNAIL // 2
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, format="WEBP", lossless=crisp, quality=85)
    return Picture("data:image/webp;base64," + base64.b64encode(data.getvalue()).decode(), crisp)
