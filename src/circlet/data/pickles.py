"""Pickle files of others, of which only plain data is read."""

import codecs
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from circlet.errors import CircletError


class _FromBuffer:
    """How newer pickles make an array, without the attributes of a function, which a pickle could change."""

    __slots__ = ()

    def __call__(self, buffer: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> np.ndarray:
        return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _admitted() -> dict[tuple[str, str], Callable[..., Any]]:
    """What a pickle may call: the makers of byte strings, of arrays, and of numbers of NumPy.

    All of them are types or built in, so that a pickle can't change their attributes either.
    """
    parts: list[Any] = [value.__reduce__()[0] for value in (np.array(0), np.bool_(True))]
    calls: dict[tuple[str, str], Callable[..., Any]] = {("_codecs", "encode"): codecs.encode}
    for module in ("__builtin__", "builtins"):
        calls |= {(module, kind.__name__): kind for kind in (bytes, bytearray)}
    for module in ("numpy.core", "numpy._core"):
        calls |= {(f"{module}.multiarray", part.__name__): part for part in parts}
        calls[f"{module}.numeric", "_frombuffer"] = _FromBuffer()
    return calls | {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}


class _Plain(pickle.Unpickler):
    """Makes nothing but lists, tuples, dictionaries, text, bytes, numbers and arrays.

    Args:
        data: The pickle.
        where: For messages.
    """

    def __init__(self, data: bytes, where: str) -> None:
        # Pickles of Python 2 hold byte strings where newer ones hold text.
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._where = where
        self._calls = _admitted()

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            return self._calls[module, name]
        except KeyError:
            raise CircletError(
                f"{self._where} asks for {module}.{name}, which is no plain data: opening such a pickle "
                f"could run any program. Nothing was run. Only lists, text, bytes, numbers, arrays are read"
            ) from None


def read_plain_pickle(path: str | Path) -> Any:
    """What a pickle file holds, if it is plain data, without running anything that it may ask for.

    Args:
        path: Of any protocol, from Python 2 or 3. Strings of Python 2 become bytes.

    Raises:
        CircletError: The file is absent or no whole pickle, or asks for something else; the message names it.
    """
    path = Path(path)
    try:
        return _Plain(path.read_bytes(), str(path)).load()
    except CircletError:
        raise
    except OSError as error:
        raise CircletError(f"{path} can't be read: {error.strerror}") from error
    # A damaged pickle can fail in any of these ways.
    except (pickle.UnpicklingError, EOFError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise CircletError(f"{path} is no whole pickle ({error}): get it again") from error
    except (AttributeError, ImportError, MemoryError, RecursionError) as error:
        raise CircletError(f"{path} is no whole pickle ({error}): get it again") from error
