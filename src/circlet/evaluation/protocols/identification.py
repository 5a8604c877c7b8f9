"""Identification: who is it, among people that are known and people that are not?"""

from pathlib import Path
from typing import Literal

from circlet import metrics
from circlet.evaluation.embeddings import Embeddings, read_embeddings
from circlet.evaluation.protocols.outcome import Outcome, numbers_of, percent, sides_of


def identification(
    items: Embeddings,
    gallery: Embeddings | None,
    *,
    distractors: Path | None = None,
    rule: Literal["closed set", "megaface"] = "closed set",
    rank_at: tuple[int, ...] = (1, 5, 10),
    fpir: tuple[float, ...] = (0.01, 0.1),
    open_set: Literal["nist", "insightface"] = "nist",
    at_distractors: tuple[int, ...] = (),
) -> Outcome:
    """Rank-k of probes in a gallery, among distractors, and TPIR at FPIR.

    Args:
        distractors: Embeddings of people that are not looked for, read in pieces (.npy: never as a whole).
        rule: closed set, or megaface: every pair of an identity's pictures among the distractors.
        rank_at: The k of rank-k.
        fpir: False positive identification rates.
        open_set: How these are counted: nist or insightface.
        at_distractors: Rank-k also among the first so many distractors.
    """
    notes: list[str] = []
    probes, gallery = sides_of(items, gallery, notes)
    ids = numbers_of("labels", probes, gallery)
    result = metrics.identification(
        probes.vectors,
        ids[0],
        None if gallery is None else gallery.vectors,
        None if gallery is None else ids[1],
        None if distractors is None else read_embeddings(distractors).vectors,
        rule=rule,
        rank_at=rank_at,
        fpir=fpir,
        open_set=open_set,
        at_distractors=at_distractors,
    )
    rows = [(f"rank-{k}", percent(share)) for k, share in result.rank_at.items()]
    for number, shares in result.rank_at_distractors.items():
        rows += [(f"rank-{k}, {number:,} distractors", percent(share)) for k, share in shares.items()]
    rows += [
        (f"TPIR at FPIR {rate:g}", percent(share))
        for rate, share in result.tpir_at_fpir.items()
        if rate not in result.unresolved_fpir
    ]
    notes += [
        f"{result.trials:,} trials by the rule {rule!r}, {result.distractors:,} distractors",
        f"false positives from probes: {result.false_positives_from}",
    ]
    if result.probes_without_mate:
        notes.append(f"{result.probes_without_mate:,} probes without a mate are in no rank")
    if result.unresolved_fpir:
        rates = ", ".join(f"{rate:g}" for rate in result.unresolved_fpir)
        notes.append(f"too few probes for FPIR {rates}; not shown")
    return Outcome(result.to_dict(), rows, notes)
