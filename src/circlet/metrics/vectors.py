"""Embeddings as the metrics take them: checked, of length 1, and which of them are repeated."""

import torch
from torch import Tensor
from torch.nn import functional

_ROWS_AT_ONCE = 4096
_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # odd, of 64 random bits: 2^64 over the golden ratio


def check_vectors(name: str, vectors: Tensor) -> None:
    """
    Raises:
        ValueError: They are no finite floats of shape (number, dim), or there are none.
    """
    if not isinstance(vectors, Tensor):
        raise ValueError(
            f"{name} must be a tensor, but got {type(vectors).__name__}; torch.as_tensor makes one"
        )
    if vectors.dim() != 2 or not vectors.is_floating_point():
        raise ValueError(
            f"{name} must be floats of shape (number, dim), "
            f"but got {vectors.dtype} of shape {tuple(vectors.shape)}"
        )
    if vectors.numel() == 0:
        raise ValueError(f"{name} must not be empty, but got shape {tuple(vectors.shape)}")
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        if not torch.isfinite(vectors[start : start + _ROWS_AT_ONCE]).all():
            pieces = torch.split(vectors, _ROWS_AT_ONCE)
            bad = torch.cat([~torch.isfinite(some).all(dim=1) for some in pieces])
            raise ValueError(
                f"{name} must be finite, but {int(bad.sum())} of {len(vectors)} rows hold NaN or infinity, "
                f"the first at position {int(bad.nonzero()[0])}"
            )


def check_integers(name: str, values: Tensor, of: str, number: int) -> None:
    """
    Raises:
        ValueError: The values are not `number` integers, one for each row of what `of` names.
    """
    if not isinstance(values, Tensor):
        raise ValueError(
            f"{name} must be a tensor, but got {type(values).__name__}; torch.as_tensor makes one"
        )
    if values.shape != (number,):
        raise ValueError(
            f"{name} must have shape ({number},), one for each row of {of}, "
            f"but got shape {tuple(values.shape)}"
            + (f"; {name}.squeeze(1) would fit" if values.shape == (number, 1) else "")
        )
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, but got {values.dtype}")


def check_same_dim(name: str, vectors: Tensor, other_name: str, others: Tensor) -> None:
    """
    Raises:
        ValueError: Their dimensions differ.
    """
    if vectors.shape[1] != others.shape[1]:
        raise ValueError(
            f"{name} and {other_name} must have the same dimension, "
            f"but got {vectors.shape[1]} and {others.shape[1]}"
        )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """
    Raises:
        ValueError: The value is none of the choices.
    """
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, but got {value!r}")


def is_integer(value: object) -> bool:
    """Whether it is an int, and not a truth value, which Python counts among them."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_count(name: str, value: int) -> None:
    """
    Raises:
        ValueError: The value is no integer of at least 1.
    """
    if not is_integer(value) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, but got {value!r}")


def comparable(vectors: Tensor, dtype: torch.dtype, *, normalize: bool) -> Tensor:
    """Vectors whose inner products are the similarities: of length 1, or as they come.

    Args:
        vectors: (number, dim).
        dtype: float32 or float64, of the result.
        normalize: To length 1; zeros stay zeros.

    Raises:
        ValueError: They come as they are, and are so long that inner products overflow.
    """
    vectors = vectors.to(dtype)
    if not normalize:
        longest = float(torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64).max())
        limit = torch.finfo(dtype).max ** 0.5
        if longest > limit:
            raise ValueError(
                f"inner products of vectors as long as {longest:.3g} do not fit into {dtype} "
                f"(longest possible: {limit:.3g}); normalize=True compares by cosine instead"
            )
        return vectors.contiguous()
    units = torch.empty_like(vectors, memory_format=torch.contiguous_format)
    for some, unit in zip(
        torch.split(vectors, _ROWS_AT_ONCE), torch.split(units, _ROWS_AT_ONCE), strict=True
    ):
        # Divided by the largest entry first: the squares in the length could overflow or vanish otherwise.
        largest = some.abs().amax(dim=1, keepdim=True)
        torch.div(some, largest.masked_fill_(largest == 0, 1), out=unit)
        length = torch.linalg.vector_norm(unit, dim=1, keepdim=True)
        unit.div_(length.masked_fill_(length == 0, 1))
    return units


def common_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where one of them is, float32 otherwise."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def first_equal_row(vectors: Tensor) -> Tensor:
    """For each row the first row that equals it, itself where there is none before; shape (number,)."""
    odd = vectors.dtype == torch.float32 and vectors.shape[1] % 2 == 1
    words = vectors.shape[1] * vectors.element_size() // 8 + odd
    powers = torch.full((words,), _MULTIPLIER, device=vectors.device).cumprod(dim=0)
    hashes = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    for some, into in zip(
        torch.split(vectors, _ROWS_AT_ONCE), torch.split(hashes, _ROWS_AT_ONCE), strict=True
    ):
        bits = some + 0.0  # makes -0.0 a 0.0
        if odd:
            bits = functional.pad(bits, (0, 1))
        into[:] = bits.view(torch.int64).mul_(powers).sum(dim=1)
    _, group = torch.unique(hashes, return_inverse=True)
    index = torch.arange(len(vectors), device=vectors.device)
    first = torch.full_like(index, len(vectors)).scatter_reduce_(0, group, index, "amin")[group]
    for repeated in torch.split((first != index).nonzero()[:, 0], _ROWS_AT_ONCE):
        unlike = (vectors[repeated] != vectors[first[repeated]]).any(dim=1)
        first[repeated[unlike]] = repeated[unlike]
    return first


def pair_keys(first: Tensor, second: Tensor) -> tuple[Tensor, int]:
    """One integer for each pair of integers, equal for equal pairs.

    Also what it is to be divided by for the place of the first one among its distinct values.
    """
    _, one = torch.unique(first, return_inverse=True)
    values, other = torch.unique(second, return_inverse=True)
    return one * len(values) + other, len(values)
