"""Verification of templates, sets of pictures and video frames of a person: IJB-B and IJB-C."""

from dataclasses import dataclass

import torch
from torch import Tensor

from circlet.metrics.vectors import (
    check_integers,
    check_same_dim,
    check_vectors,
    common_dtype,
    comparable,
    pair_keys,
)

_PAIRS_AT_ONCE = 2**15


@dataclass(frozen=True, eq=False)
class Templates:
    """A vector for each template.

    Attributes:
        ids: (templates,) int64, rising.
        vectors: (templates, dim) of length 1.
    """

    ids: Tensor
    vectors: Tensor

    def scores(self, first: Tensor, second: Tensor) -> Tensor:
        """The cosines of pairs of templates, some at a time.

        Args:
            first, second: (pairs,) integers: the ids of the templates of each pair.

        Returns:
            (pairs,), for `verification`.

        Raises:
            ValueError: Shapes or dtypes are not as said, or an id is unknown.
        """
        check_integers("first", first, "first", len(first))
        check_integers("second", second, "first", len(first))
        scores = self.vectors.new_empty(len(first))
        places = [self._places(name, ids) for name, ids in (("first", first), ("second", second))]
        for start in range(0, len(first), _PAIRS_AT_ONCE):
            some = slice(start, start + _PAIRS_AT_ONCE)
            one, other = (self.vectors[place[some]] for place in places)
            scores[some] = (one * other).sum(dim=1)
        return scores

    def _places(self, name: str, ids: Tensor) -> Tensor:
        ids = ids.to(self.ids.device, torch.int64)
        place = torch.searchsorted(self.ids, ids).clamp_max(len(self.ids) - 1)
        unknown = (self.ids[place] != ids).nonzero()[:, 0]
        if len(unknown) > 0:
            at = int(unknown[0])
            raise ValueError(
                f"{len(unknown)} of {len(ids)} template ids in {name} are unknown, the first is "
                f"{int(ids[at])} at position {at}: no picture has it as its template"
            )
        return place


@torch.no_grad()
def templates(
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
    taken; the media are summed; the sum is brought to length 1. The three switches change the table: state
    them with it.

    Args:
        features: (pictures, dim), as the network gives them.
        template_ids: (pictures,) integers.
        media_ids: (pictures,) integers.
        flipped: (pictures, dim) features of the mirror images, to be added (F2); None: without (F0).
        keep_norm: Long features count more (N1). False brings each to length 1 first (N0).
        detector_scores: (pictures,) to multiply with (D1); None: without (D0).

    Raises:
        ValueError: Shapes, dtypes or values are not as said.

    Sources:
        insightface, `eval_ijbc.py`; Maze et al., "IARPA Janus Benchmark-C", ICB 2018.

    Example:
        >>> pooled = templates(features, template_ids, media_ids, flipped=flipped, detector_scores=scores)
        >>> result = verification(pooled.scores(first, second), same, folds=0)
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
        if detector_scores.shape != (len(features),) or not torch.isfinite(detector_scores).all():
            raise ValueError(
                f"detector_scores must be finite and of shape ({len(features)},), one for each row of "
                f"features, but got shape {tuple(detector_scores.shape)}"
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
