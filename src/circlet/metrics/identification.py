"""Identification figures: rank-k among any number of distractors, and open-set TPIR at FPIR."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from circlet.metrics.mates import Mates, Others
from circlet.metrics.retrieval import checked_ks, some_values
from circlet.metrics.vectors import (
    check_choice,
    check_integers,
    check_same_dim,
    check_vectors,
    common_dtype,
    comparable,
)

Rule = Literal["closed set", "megaface"]
OpenSet = Literal["nist", "insightface"]
FalsePositives = Literal["without mate", "all, mates left out"]

_PIECE = 2**14


@dataclass(frozen=True)
class Identification:
    """How well probes find their identity; all figures are fractions in [0, 1].

    Attributes:
        rank_at: For each k the share of trials whose mate is among the first k.
        rank_at_distractors: The same among the first n distractors, for each n asked for.
        rule: "closed set" or "megaface".
        trials: How many trials these are over: probes with a mate, or pairs of a probe and a mate.
        probes: How many probes were given.
        probes_without_mate: How many have no mate in the gallery; they are in no rank.
        gallery_size: How many items the gallery has, distractors not counted.
        distractors: How many distractors there were, those left out not counted.
        left_out_distractors: How many were left out.
        tpir_at_fpir: For each false positive identification rate the true positive identification rate.
        open_set: "nist" or "insightface".
        false_positives_from: The probes that gave the false positives: those "without mate", or "all, mates
            left out".
        unresolved_fpir: The rates below 1 over the number of these probes: a single false positive is more.
    """

    rank_at: dict[int, float]
    rank_at_distractors: dict[int, dict[int, float]]
    rule: Rule
    trials: int
    probes: int
    probes_without_mate: int
    gallery_size: int
    distractors: int
    left_out_distractors: int
    tpir_at_fpir: dict[float, float]
    open_set: OpenSet
    false_positives_from: FalsePositives
    unresolved_fpir: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON: keys are strings."""
        fields = dict(vars(self))
        for name in ("rank_at", "tpir_at_fpir"):
            fields[name] = {str(key): share for key, share in fields[name].items()}
        fields["rank_at_distractors"] = {
            str(number): {str(k): share for k, share in shares.items()}
            for number, shares in self.rank_at_distractors.items()
        }
        return fields | {"unresolved_fpir": list(self.unresolved_fpir)}


@torch.no_grad()
def identification(
    probes: Tensor,
    probe_ids: Tensor,
    gallery: Tensor | None = None,
    gallery_ids: Tensor | None = None,
    distractors: Tensor | None = None,
    *,
    rule: Rule = "closed set",
    rank_at: Sequence[int] = (1, 5, 10),
    fpir: Sequence[float] = (0.01, 0.1),
    open_set: OpenSet = "nist",
    at_distractors: Sequence[int] = (),
    left_out_distractors: Tensor | None = None,
    normalize: bool = True,
) -> Identification:
    """Look for every probe's identity in a gallery, among distractors.

    "closed set": a trial is a probe that has a mate, a gallery item of its identity. Its rank is 1 plus the
    number of gallery items of other identities, and of distractors, that are at least as similar to it as its
    best mate: ties count against the probe.

    "megaface" (rank-k of MegaFace): a trial is a pair of a probe and a mate, and its rank is 1 plus the
    number of distractors that are more similar to the probe than the mate: ties count for it, as published.
    Gallery items of other identities are not in the way.

    The open set: a probe with a mate is identified (TPIR) if its best mate comes before all others, and lies
    above a threshold. The threshold is such that for the share FPIR of the probes without a mate something
    lies above it ("nist"). Where all probes have one, these are all probes with their mates left out.
    "insightface" counts otherwise: of all similarities of all probes to other identities, probes x FPIR may
    reach the threshold, and a mate needs only to lie above it.

    Distractors are read in pieces of 16,384 and never copied as a whole: a memory-mapped file will do
    (`torch.from_numpy(numpy.load(path, mmap_mode="r"))`).

    Args:
        probes: (probes, dim), any float dtype.
        probe_ids: (probes,) integers.
        gallery: (gallery, dim). None: each probe looks among the other probes.
        gallery_ids: (gallery,) integers.
        distractors: (distractors, dim): people of other identities than all probes.
        rule: What a trial is.
        rank_at: The k of rank-k, each at least 1.
        fpir: False positive identification rates, between 0 and 1.
        open_set: How TPIR and FPIR are counted.
        at_distractors: Numbers of distractors: rank-k also among the first so many.
        left_out_distractors: (distractors,) True for those to leave out, such as those of a noise list.
        normalize: Compare by cosine; False by inner products.

    Raises:
        ValueError: Shapes, dtypes or values are not as said, or no probe has a mate.

    Sources:
        Kemelmacher-Shlizerman et al., "The MegaFace Benchmark", CVPR 2016. TPIR and FPIR: Grother and Ngan,
        "Face Recognition Vendor Test", NIST IR 8009; insightface, `ijb_1n.py`.

    Example:
        >>> result = identification(probes, probe_ids, gallery, gallery_ids)
        >>> result = identification(faces, ids, distractors=million, rule="megaface", at_distractors=(1000,))
        >>> result.rank_at[1], result.tpir_at_fpir[0.01]
    """
    ks, numbers = checked_ks("rank_at", rank_at), checked_ks("at_distractors", at_distractors)
    _check_rule(rule, open_set, fpir)
    check_vectors("probes", probes)
    check_integers("probe_ids", probe_ids, "probes", len(probes))
    own = gallery is None
    if (gallery is None) != (gallery_ids is None):
        raise ValueError("gallery and gallery_ids go together: give both, or neither to search the probes")
    if gallery is None or gallery_ids is None:
        gallery, gallery_ids = probes, probe_ids
    else:
        check_vectors("gallery", gallery)
        check_integers("gallery_ids", gallery_ids, "gallery", len(gallery))
        check_same_dim("probes", probes, "gallery", gallery)
    if distractors is not None:
        check_same_dim("probes", probes, "distractors", distractors)
    _check_distractors(distractors, left_out_distractors, numbers, rule)

    device, dtype = probes.device, common_dtype(probes, gallery)
    vectors = comparable(probes, dtype, normalize=normalize)
    items = vectors if own else comparable(gallery.to(device), dtype, normalize=normalize)
    ids, item_ids = probe_ids.to(device, torch.int64), gallery_ids.to(device, torch.int64)
    with torch.autocast(device.type, enabled=False):
        mates = Mates(vectors, ids, items, item_ids, own)
    if not bool(mates.any.any()):
        raise ValueError(
            f"no probe has a mate: none of the probe_ids ({some_values(probe_ids)}) "
            + ("stands twice" if own else f"is among the gallery_ids ({some_values(gallery_ids)})")
        )
    allowed = math.ceil(max(fpir, default=0) * len(vectors)) or 1
    others = Others(1, allowed, mates.best)
    with torch.autocast(device.type, enabled=False):
        others.see_gallery(vectors, items, mates)
    strangers = Others(max(ks), allowed, mates.best) if rule == "megaface" else others
    at: dict[int, dict[int, float]] = {}
    for stop, piece in _pieces(distractors, left_out_distractors, numbers):
        if len(piece) > 0:
            check_vectors("distractors", piece)
            prepared = comparable(piece.to(device), dtype, normalize=normalize)
            with torch.autocast(device.type, enabled=False):
                strangers.see(vectors, prepared)
        if stop in numbers:
            at[stop] = _shares(rule, ks, mates, strangers)
    best_other, best_of_all = others.best[:, 0], others.best_of_all
    if strangers is not others:
        best_other = torch.maximum(best_other, strangers.best[:, 0])
        best_of_all = torch.cat([best_of_all, strangers.best_of_all]).sort(descending=True).values
    without = ~mates.any
    source: FalsePositives = "without mate"
    if open_set == "insightface" or not bool(without.any()):
        without, source = torch.ones_like(without), "all, mates left out"
    if open_set == "nist":
        tpir = _tpir_by_nist(mates, best_other, without, fpir)
    else:
        tpir = _tpir_by_insightface(mates, best_of_all, fpir)
    left_out = 0 if left_out_distractors is None else int(left_out_distractors.sum())
    with_mate = int(mates.any.sum())
    return Identification(
        rank_at=_shares(rule, ks, mates, strangers),
        rank_at_distractors=at,
        rule=rule,
        trials=int(mates.number.sum()) if rule == "megaface" else with_mate,
        probes=len(vectors),
        probes_without_mate=len(vectors) - with_mate,
        gallery_size=len(items),
        distractors=(0 if distractors is None else len(distractors)) - left_out,
        left_out_distractors=left_out,
        tpir_at_fpir=tpir,
        open_set=open_set,
        false_positives_from=source,
        unresolved_fpir=tuple(rate for rate in fpir if rate * int(without.sum()) < 1),
    )


def _check_rule(rule: str, open_set: str, fpir: Sequence[float]) -> None:
    check_choice("rule", rule, ("closed set", "megaface"))
    check_choice("open_set", open_set, ("nist", "insightface"))
    for rate in fpir:
        if not 0 < rate < 1:
            raise ValueError(f"fpir must hold rates between 0 and 1, such as 0.01, but got {rate}")


def _check_distractors(
    distractors: Tensor | None, left_out: Tensor | None, numbers: Sequence[int], rule: Rule
) -> None:
    if distractors is None and rule == "megaface":
        raise ValueError("rule='megaface' ranks mates among distractors: give some")
    available = 0 if distractors is None else len(distractors)
    if left_out is not None and (left_out.shape != (available,) or left_out.dtype != torch.bool):
        raise ValueError(
            f"left_out_distractors must be booleans of shape ({available},), one for each distractor, "
            f"but got {left_out.dtype} of shape {tuple(left_out.shape)}"
        )
    if numbers and max(numbers) > available:
        raise ValueError(f"at_distractors asks for {max(numbers)} distractors, but there are {available}")


def _pieces(
    distractors: Tensor | None, left_out: Tensor | None, numbers: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """The distractors some at a time, cut at these numbers, and how many were read by then."""
    if distractors is None:
        return
    ends = sorted({*range(_PIECE, len(distractors), _PIECE), *numbers, len(distractors)})
    start = 0
    for stop in ends:
        piece = distractors[start:stop]
        yield stop, piece if left_out is None else piece[~left_out[start:stop].to(piece.device)]
        start = stop


def _shares(rule: Rule, ks: Sequence[int], mates: Mates, others: Others) -> dict[int, float]:
    if rule == "closed set":
        ranks = others.reaching[mates.any] + 1
        return {k: float((ranks <= k).double().mean()) for k in ks}
    real = mates.similarities < torch.inf
    found = {k: (mates.similarities >= others.best[:, k - 1]) & real for k in ks}
    return {k: int(hits.sum()) / int(real.sum()) for k, hits in found.items()}


def _tpir_by_nist(
    mates: Mates, best_other: Tensor, without: Tensor, fpir: Sequence[float]
) -> dict[float, float]:
    wrong = best_other[without].sort(descending=True).values
    best, others = mates.best[mates.any], best_other[mates.any]
    rates = {}
    for rate in fpir:
        # Accepted is what lies above the threshold: of these, as many as the rate allows.
        allowed = math.floor(rate * len(wrong) + 1e-9)
        right = (best > others) & (best > wrong[allowed])
        rates[rate] = float(right.double().mean())
    return rates


def _tpir_by_insightface(mates: Mates, best_of_all: Tensor, fpir: Sequence[float]) -> dict[float, float]:
    best = mates.best[mates.any]
    thresholds = {rate: best_of_all[math.ceil(len(mates.best) * rate) - 1] for rate in fpir}
    return {rate: float((best > threshold).double().mean()) for rate, threshold in thresholds.items()}


@torch.no_grad()
def replaced_by_mean(features: Tensor, ids: Tensor, noisy: Tensor) -> Tensor:
    """Features of a noise list become the mean of the clean ones of their identity, as FaceX-Zoo has it.

    Args:
        features: (images, dim) floats.
        ids: (images,) integers.
        noisy: (images,) True for those to replace.

    Raises:
        ValueError: Shapes or dtypes are not as said, or an identity has noisy features alone.
    """
    check_vectors("features", features)
    check_integers("ids", ids, "features", len(features))
    if noisy.shape != ids.shape or noisy.dtype != torch.bool:
        raise ValueError(
            f"noisy must be booleans, one for each image, but got {noisy.dtype} of shape {tuple(noisy.shape)}"
        )
    names, of = torch.unique(ids, return_inverse=True)
    number = torch.bincount(of[~noisy], minlength=len(names))
    if bool((number == 0).any()):
        raise ValueError(f"identity {int(names[number == 0][0])} has noisy features alone: leave it out")
    sums = features.new_zeros(len(names), features.shape[1]).index_add_(0, of[~noisy], features[~noisy])
    return torch.where(noisy[:, None], (sums / number[:, None])[of], features)
