"""Time and memory of the metrics beside the bare matrix product that they rank by.

Each case runs in a process of its own, so that its peak of memory is its own. The product is that of the same
queries and gallery in tiles, made before and after, and the lower time counts. Figures to print and as JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from circlet import metrics

DIM = 512
# Of clusters: how far samples stand from their class's centre, in units of its length.
TRAINED, HARD = 1.5, 4.0


@dataclass(frozen=True)
class Row:
    """What was measured.

    Attributes:
        case: What.
        seconds: The best of its runs.
        product: Seconds of the bare product, the best of its runs; None without one.
        other: Seconds of the peer, if there is one.
        megabytes: Peak of memory over what was there before.
        found: A figure, to see that the case is what it says.
    """

    case: str
    seconds: float
    product: float | None
    other: float | None
    megabytes: float
    found: str


def clustered(number: int, classes: int, spread: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit vectors around the centres of their classes, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (number,), generator=generator)
    centres = functional.normalize(torch.randn(classes, DIM, generator=generator))
    vectors = centres[labels]
    vectors += torch.randn(number, DIM, generator=generator) * (spread / DIM**0.5)
    return functional.normalize(vectors), labels


def memory(line: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(row.split()[1]) for row in status if row.startswith(line)) / 1024


def measured(step: Callable[[], Any], runs: int) -> tuple[float, float, Any]:
    """The best time of some runs, the peak of memory of the first, and what it gave."""
    before, best, peak, found = memory("VmRSS"), float("inf"), 0.0, None
    for run in range(runs):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        start = time.perf_counter()
        result = step()
        best = min(best, time.perf_counter() - start)
        if run == 0:
            peak, found = memory("VmHWM") - before, result
    return best, peak, found


def product_seconds(queries: Tensor, gallery: Tensor) -> float:
    """The bare product of all queries and items in tiles of 512 x 1,024, none of it kept."""
    tile = torch.empty(512 * 1024)
    start = time.perf_counter()
    for some in torch.split(queries, 512):
        for items in torch.split(gallery, 1024):
            torch.mm(some, items.T, out=tile[: len(some) * len(items)].view(len(some), len(items)))
    return time.perf_counter() - start


def beside_product(
    name: str,
    step: Callable[[], Any],
    queries: Tensor,
    gallery: Tensor,
    runs: int,
    told: Callable[[Any], str],
) -> Row:
    first = product_seconds(queries, gallery)
    seconds, peak, found = measured(step, runs)
    product = min(first, product_seconds(queries, gallery))
    return Row(name, seconds, product, None, peak, told(found))


def leave_one_out(spread: float, classes: int, name: str) -> Row:
    vectors, labels = clustered(60_502, classes, spread)
    step = lambda: metrics.retrieval(vectors, labels, recall_at=(1, 10, 100, 1000))  # noqa: E731
    return beside_product(
        name, step, vectors, vectors, 1, lambda found: f"recall@1 {100 * found.recall_at[1]:.1f} %"
    )


def market(spread: float, name: str) -> Row:
    """The numbers of Market-1501: 3,368 queries, 19,732 gallery items of which 3,819 are junk."""
    generator = torch.Generator().manual_seed(0)
    vectors, labels = clustered(23_100, 752, spread)
    query, gallery = vectors[:3_368], vectors[3_368:]
    query_ids, ids = labels[:3_368] - 1, labels[3_368:] - 1  # two of the classes are junk and distractors
    ids[torch.randperm(19_732, generator=generator)[:3_819]] = -1
    cameras, gallery_cameras = torch.randint(6, (23_100,), generator=generator).split([3_368, 19_732])
    given = (query, query_ids, cameras, gallery, ids, gallery_cameras)
    row = beside_product(
        name,
        lambda: metrics.reidentification(*given),
        query,
        gallery[ids != -1],
        5,
        lambda found: f"mAP {100 * found.mean_average_precision:.1f} %",
    )
    start = time.perf_counter()
    looped = reidentification_by_loop(*(part.numpy() for part in given))
    other = time.perf_counter() - start
    return Row(**(asdict(row) | {"other": other, "found": f"{row.found}; the loop's {100 * looped:.1f} %"}))


def reidentification_by_loop(
    query: np.ndarray,
    query_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery: np.ndarray,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
) -> float:
    """mAP as fast-reid has it: a matrix of distances, argsort, and a loop over the queries."""
    kept = gallery_ids != -1
    gallery, gallery_ids, gallery_cameras = gallery[kept], gallery_ids[kept], gallery_cameras[kept]
    order = np.argsort(1 - query @ gallery.T, axis=1)
    precisions = []
    for number in range(len(query)):
        ids = gallery_ids[order[number]]
        own = (ids == query_ids[number]) & (gallery_cameras[order[number]] == query_cameras[number])
        hits = (ids == query_ids[number])[~own] & (query_ids[number] > 0)
        if hits.any():
            precision = hits.cumsum() / np.arange(1, len(hits) + 1)
            precisions.append((precision * hits).sum() / hits.sum())
    return float(np.mean(precisions))


def reranking(name: str) -> Row:
    vectors, labels = clustered(20_000, 1_000, TRAINED)
    query, gallery = vectors[:3_368], vectors[3_368:]

    def step() -> int:
        reranked = metrics.k_reciprocal_rerank(query, gallery)
        for start in range(0, len(query), 256):
            reranked.distances(slice(start, start + 256))
        return len(labels)

    return beside_product(name, step, vectors, vectors, 1, lambda found: f"{found:,} items")


def megaface(name: str) -> Row:
    """3,530 faces of 80 people among a million distractors, which are read from a file."""
    faces, ids = clustered(3_530, 80, TRAINED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "distractors.npy"
        written = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(1_000_000, DIM))
        generator = np.random.default_rng(0)
        for start in range(0, len(written), 10_000):
            written[start : start + 10_000] = generator.standard_normal((10_000, DIM), dtype=np.float32)
        written.flush()
        del written
        distractors = torch.from_numpy(np.load(path, mmap_mode="c"))
        return beside_product(
            name,
            lambda: metrics.identification(faces, ids, distractors=distractors, rule="megaface"),
            faces,
            distractors,
            1,
            lambda found: f"rank-1 {100 * found.rank_at[1]:.1f} %",
        )


CASES: dict[str, Callable[[], Row]] = {
    "sop": lambda: leave_one_out(TRAINED, 11_316, "leave-one-out, 60,502, classes of 5"),
    "sop-hard": lambda: leave_one_out(HARD, 11_316, "the same, hardly trained"),
    "many": lambda: leave_one_out(TRAINED, 60, "leave-one-out, 60,502, classes of 1,000"),
    "many-hard": lambda: leave_one_out(HARD, 60, "the same, hardly trained"),
    "market": lambda: market(TRAINED, "re-identification, 3,368 x 19,732"),
    "market-hard": lambda: market(HARD, "the same, hardly trained"),
    "reranking": lambda: reranking("re-ranking, 20,000"),
    "megaface": lambda: megaface("identification, 3,530 among 1,000,000"),
}


def table(rows: list[Row]) -> str:
    lines = [
        "| case | seconds | product | / product | loop / circlet | MB | found |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = "" if row.product is None else f"{row.seconds / row.product:.2f}"
        other = "" if row.other is None else f"{row.other / row.seconds:.1f}"
        product = "" if row.product is None else f"{row.product:.2f}"
        cells = [row.case, f"{row.seconds:.2f}", product, ratio, other, f"{row.megabytes:.0f}", row.found]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="*", choices=list(CASES), default=list(CASES), help="some of the cases"
    )
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(asdict(CASES[given.case]())))
        return
    rows = []
    for case in given.only:
        done = subprocess.run(
            [sys.executable, __file__, "--case", case], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{case} failed:\n{done.stderr}")
        rows.append(Row(**json.loads(done.stdout.splitlines()[-1])))
        print(f"{case}: {rows[-1].seconds:.2f} s", file=sys.stderr)
    print(table(rows))
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
