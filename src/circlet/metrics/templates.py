"""Verification of templates, sets of pictures and video frames of a person: IJB-B and IJB-C."""

from dataclasses import dataclass

import torch
from torch import Tensor

from circlet.metrics.vectors import (
    check_count,
    check_integers,
    check_same_dim,
    check_vectors,
    common_dtype,
    comparable,
    pair_keys,
)

# Many more vectors at once leave the caches; with many fewer, on shared cores, threads wait for one another.
_PAIRS_AT_ONCE = 2**13


@dataclass(frozen=True, eq=False)
class Templates:
    """A vector for each template.

    Attributes:
        ids: (templates,) int64, rising.
        vectors: (templates, dim) of length 1.
    """

    ids: Tensor
    vectors: Tensor


@torch.no_grad()
def pool_templates(
    features: Tensor,
    template_ids: Tensor,
    media_ids: Tensor,
    *,
    flipped: Tensor | None = None,
    keep_norm: bool = True,
    detector_scores: Tensor | None = None,
) -> Templates:
    """Pool the features of pictures into one vector for each template, as insightface does for IJB.

    A picture's feature, with its mirror image's added, is kept as long as it is or brought to length 1, and
    multiplied by the detector's score. Of features of one medium (a video) within a template the mean is
    taken; the media are summed; the sum is brought to length 1. A sum of zeros stays zeros. The order of the
    pictures changes nothing but the rounding. Memory is up to four times that of the features.

    The three switches are those of `eval_ijbc.py`, which by default has them all: F2, N1, D1. They change the
    table: state them with it.

    Args:
        features: (pictures, dim), any float dtype, as the network gives them: not brought to length 1.
        template_ids: (pictures,) integers.
        media_ids: (pictures,) integers. A medium that is in two templates counts in each on its own.
        flipped: (pictures, dim) features of the mirror images, to be added (F2); None: without (F0).
        keep_norm: Long features count more (N1). False brings each to length 1 first (N0).
        detector_scores: (pictures,) to multiply with (D1); None: without (D0).

    Returns:
        A vector for each template, in float32; in float64 for float64 features.

    Raises:
        ValueError: Shapes, dtypes or values are not as said.

    Sources:
        insightface, `eval_ijbc.py`; Maze et al., "IARPA Janus Benchmark-C", ICB 2018.

    Example:
        >>> pooled = pool_templates(features, of, media, flipped=flipped, detector_scores=detected)
        >>> result = verification(template_scores(pooled, first, second), same, folds=None)
        >>> result.tar_at_far[1e-4]
    """
    check_vectors("features", features)
    check_integers("template_ids", template_ids, "features", len(features))
    check_integers("media_ids", media_ids, "features", len(features))
    vectors = features.to(common_dtype(features))
    if flipped is not None:
        check_vectors("flipped", flipped)
        check_same_dim("features", features, "flipped", flipped)
        if len(flipped) != len(features):
            raise ValueError(f"flipped must have {len(features)} rows like features, but got {len(flipped)}")
        vectors = vectors + flipped
    if not keep_norm:
        vectors = comparable(vectors, vectors.dtype, normalize=True)
    if detector_scores is not None:
        if detector_scores.shape != (len(features),):
            raise ValueError(
                f"detector_scores must be of shape ({len(features)},), one for each row of features, "
                f"but got shape {tuple(detector_scores.shape)}"
            )
        bad = (~torch.isfinite(detector_scores)).nonzero()[:, 0]
        if len(bad) > 0:
            at = int(bad[0])
            raise ValueError(
                f"detector_scores must be finite, but got {detector_scores[at].item()} at position {at}"
            )
        vectors = vectors * detector_scores.to(vectors.dtype)[:, None]
    keys, media_number = pair_keys(template_ids, media_ids)
    media, of_picture = torch.unique(keys, return_inverse=True)
    number = torch.bincount(of_picture, minlength=len(media))
    of_media = vectors.new_zeros(len(media), vectors.shape[1]).index_add_(0, of_picture, vectors)
    of_media /= number[:, None]
    ids = torch.unique(template_ids).long()
    pooled = vectors.new_zeros(len(ids), vectors.shape[1]).index_add_(0, media // media_number, of_media)
    return Templates(ids, comparable(pooled, pooled.dtype, normalize=True))


@torch.no_grad()
def template_scores(
    templates: Templates, first_ids: Tensor, second_ids: Tensor, *, chunk: int = _PAIRS_AT_ONCE
) -> Tensor:
    """The cosines of pairs of templates: the inner products of their vectors.

    Some pairs are compared at a time. Working memory is 2 x chunk x dim numbers, and some 40 bytes a pair; it
    does not grow with pairs x dim. A pair's score depends neither on the chunk nor on which one is first.

    Args:
        templates: From `pool_templates`.
        first_ids: (pairs,) integers: the ids of the first template of each pair.
        second_ids: (pairs,) integers: those of the second.
        chunk: Pairs at a time.

    Returns:
        (pairs,) float32, float64 for vectors of float64. For `verification`.

    Raises:
        ValueError: Shapes or dtypes are not as said, or an id is unknown.

    Example:
        >>> scores = template_scores(pooled, first_ids, second_ids)
    """
    check_count("chunk", chunk)
    number = len(first_ids) if isinstance(first_ids, Tensor) and first_ids.dim() > 0 else 0
    check_integers("first_ids", first_ids, "first_ids", number)
    check_integers("second_ids", second_ids, "first_ids", number)
    vectors = templates.vectors
    dtype = common_dtype(vectors)
    first = _places(templates.ids, "first_ids", first_ids)
    second = _places(templates.ids, "second_ids", second_ids)
    scores = torch.empty(number, dtype=dtype, device=vectors.device)
    for start in range(0, number, chunk):
        some = slice(start, start + chunk)
        one, other = vectors[first[some]].to(dtype), vectors[second[some]].to(dtype)
        # Not a matrix product: those round in other ways for other sizes, and lower precision may be set.
        scores[some] = one.mul_(other).sum(dim=1)
    return scores


def _places(known: Tensor, name: str, ids: Tensor) -> Tensor:
    """Where the ids stand among the known ones, which rise."""
    ids = ids.to(known.device, torch.int64)
    place = torch.searchsorted(known, ids).clamp_max_(len(known) - 1)
    unknown = (known[place] != ids).nonzero()[:, 0]
    if len(unknown) > 0:
        at = int(unknown[0])
        raise ValueError(
            f"{len(unknown)} of {len(ids)} template ids in {name} are unknown, the first is "
            f"{int(ids[at])} at position {at}: no picture has it as its template"
        )
    return place
