"""How many directions embeddings use: a low number is a collapse."""

import torch
from torch import Tensor
from torch.nn import functional


@torch.no_grad()
def effective_rank(embeddings: Tensor) -> float:
    """The effective rank of embeddings scaled to length 1 and centred (Roy & Vetterli, EUSIPCO 2007).

        exp(-sum_k p_k ln p_k),   p_k = sigma_k / sum_l sigma_l

    sigma are the singular values of the matrix of embeddings less their mean. It is 1 if all lie on a line,
    and the dimension if they spread evenly in all directions; it can't exceed one less than their number.

    Args:
        embeddings: (number, dim), any float dtype.

    Returns:
        From 1 to min(number - 1, dim); 0 if all embeddings are the same, or there are none.

    Raises:
        ValueError: The embeddings are not a matrix.
    """
    if embeddings.dim() != 2:
        raise ValueError(f"embeddings must be of shape (number, dim), but got {tuple(embeddings.shape)}")
    if len(embeddings) < 2:
        return 0.0
    # In float64, as the roots of eigenvalues that are 0 but for rounding add up. Some devices have none.
    device = "cpu" if embeddings.device.type == "mps" else embeddings.device
    vectors = functional.normalize(embeddings.to(device=device, dtype=torch.float64))
    vectors = vectors - vectors.mean(dim=0)
    products = vectors.T @ vectors if vectors.shape[0] >= vectors.shape[1] else vectors @ vectors.T
    squared = torch.linalg.eigvalsh(products).clamp_min(0)
    # Singular values below what rounding leaves of the products are 0.
    values = torch.where(squared > len(squared) * 1e-15 * squared.max(), squared, 0).sqrt()
    if values.sum() < 1e-7 * len(vectors) ** 0.5:
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())
