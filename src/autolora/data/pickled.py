"""Pickles of lists, dictionaries, texts, numbers and arrays of bytes, as CIFAR's python version is made of."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autolora.pickles import Record, Vocabulary, read_pickle

RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
ENCODE = "_codecs.encode"  # how Python 3 writes bytes for Python 2
VOCABULARY = Vocabulary(calls={}, kinds=frozenset((*RECONSTRUCT, "numpy.dtype", ENCODE)), words=("numpy.ndarray",))


def read_data(data: bytes) -> Any:
    """Return what a pickle holds. Texts of Python 2 come as latin-1 ``str``, numpy arrays as records: `bytes_array`.

    Raises:
        Refused: it names something that is no part of plain data.
        Damaged: it cannot be read.
    """
    return read_pickle(BytesIO(data), VOCABULARY)


def bytes_array(value: Any) -> NDArray[np.uint8]:
    """Return the array of bytes that `read_data` found, as its shape has it.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, Record) or value.kind not in RECONSTRUCT or not isinstance(value.state, tuple):
        raise ValueError("there is no array where one should be")
    try:
        _, shape, kind, fortran, data = value.state
        if isinstance(data, Record) and data.kind == ENCODE:
            data = data.args[0]
        if kind.kind != "numpy.dtype" or kind.args[0] not in ("u1", "|u1") or fortran:
            raise ValueError("not of unsigned bytes in C order")
        raw = data.encode("latin-1") if isinstance(data, str) else memoryview(data)
        return np.frombuffer(raw, dtype=np.uint8).reshape(shape)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"an array in it is not sound: {error}") from None
