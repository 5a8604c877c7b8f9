"""Multi-query re-identification: several pictures of a query become one."""

from typing import Literal

import torch
from torch import Tensor

from circlet.metrics.vectors import (
    check_choice,
    check_integers,
    check_vectors,
    common_dtype,
    comparable,
    pair_keys,
)


@torch.no_grad()
def pooled_queries(
    query_ids: Tensor,
    query_cameras: Tensor,
    more: Tensor,
    more_ids: Tensor,
    more_cameras: Tensor,
    *,
    pooling: Literal["mean", "max"] = "mean",
    normalize: bool = True,
) -> Tensor:
    """Multi-query: for each query the mean or maximum of all pictures of its identity by its camera.

    Args:
        query_ids, query_cameras: (queries,) integers.
        more: (pictures, dim) embeddings: those of `gt_bbox` in Market-1501.
        more_ids, more_cameras: (pictures,) integers.
        pooling: What is taken of them.
        normalize: Each to length 1 first.

    Returns:
        (queries, dim), in place of the queries' embeddings in `reidentification`.

    Raises:
        ValueError: Shapes, dtypes or values are not as said, or a query has no such picture.
    """
    check_choice("pooling", pooling, ("mean", "max"))
    check_vectors("more", more)
    for name, values in (("more_ids", more_ids), ("more_cameras", more_cameras)):
        check_integers(name, values, "more", len(more))
    check_integers("query_ids", query_ids, "the queries", len(query_ids))
    check_integers("query_cameras", query_cameras, "query_ids", len(query_ids))
    keys, _ = pair_keys(torch.cat([query_ids, more_ids]), torch.cat([query_cameras, more_cameras]))
    names, place = torch.unique(keys, return_inverse=True)
    of_query, of_picture = place[: len(query_ids)], place[len(query_ids) :]
    number = torch.bincount(of_picture, minlength=len(names))
    missing = (number[of_query] == 0).nonzero()[:, 0]
    if len(missing) > 0:
        where = int(missing[0])
        raise ValueError(
            f"{len(missing)} of {len(query_ids)} queries have no picture in `more`, the first at position "
            f"{where}: identity {int(query_ids[where])}, camera {int(query_cameras[where])}"
        )
    vectors = comparable(more, common_dtype(more), normalize=normalize)
    if pooling == "mean":
        pooled = vectors.new_zeros(len(names), vectors.shape[1]).index_add_(0, of_picture, vectors)
        return (pooled / number.clamp_min(1)[:, None])[of_query]
    index = of_picture[:, None].expand_as(vectors)
    pooled = vectors.new_full((len(names), vectors.shape[1]), -torch.inf)
    return pooled.scatter_reduce_(0, index, vectors, "amax")[of_query]
