"""Tensors of a file before their numbers are read: where these lie, of what type, and in what shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autolora.pickles import Damaged

__all__ = ["STORAGES", "Array", "ArrayType", "Storage", "StoredTensor", "bytes_of", "scalar"]

STORAGES: dict[str, torch.dtype] = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
}
"""Types of torch's storage classes, ``FloatStorage`` and so on."""

MOST_REPEATED = 2**20  # bytes; a tensor may view the same numbers several times, as expand() makes it, in reason
NUMERIC = re.compile(r"[?biufc]\d*")  # numpy's letters for truth values, integers and floats


class Storage:
    """Numbers that lie in a file, in a row; read when first asked for.

    Args:
        dtype: Their type.
        count: How many.
        read: Gives their bytes, in the order of this machine.

    Raises:
        Damaged: If the count cannot be.
    """

    def __init__(self, dtype: torch.dtype, count: int, read: Callable[[int], bytes]) -> None:
        if not isinstance(count, int) or count < 0:
            raise Damaged(f"a storage of {count!r} numbers")
        self.dtype = dtype
        self.size = count * dtype.itemsize  # in bytes
        self._read = read

    @cached_property
    def content(self) -> bytearray:
        """Return the bytes.

        Raises:
            Damaged: If the file does not hold as many.
        """
        content = self._read(self.size)
        if len(content) != self.size:
            raise Damaged(f"{len(content)} bytes of numbers instead of {self.size}")
        return bytearray(content)


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage: element i_1, ..., i_n lies at offset + sum_k i_k stride_k.

    Args:
        storage: Where the numbers are.
        offset: Of the first, in elements.
        shape: Of the tensor.
        strides: In elements, one for each dimension.
        dtype: If it is not the storage's own.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype | None = None

    def set_state(self, state: Any) -> None:
        """Take attributes that someone gave the tensor; they say nothing here."""

    def tensor(self) -> Tensor:
        """Read the numbers.

        Raises:
            Damaged: If the view is not within its storage, or the file does not hold the numbers.
        """
        dtype = self.dtype or self.storage.dtype
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or any(not isinstance(n, int) or n < 0 for n in numbers):
            raise Damaged("a tensor of no possible shape")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and (last + 1) * dtype.itemsize > self.storage.size:
            raise Damaged("a tensor that reaches beyond its numbers")
        if prod(self.shape) * dtype.itemsize > max(self.storage.size, MOST_REPEATED):
            raise Damaged("a tensor that repeats its numbers over and over")
        content = self.storage.content
        try:
            flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype, device="cpu")
            return flat.as_strided(self.shape, self.strides, self.offset)
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise Damaged(f"a tensor that cannot be ({error})") from None


class ArrayType:
    """numpy's dtype, as pickles build it: a letter and a size, then the order of the bytes."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code
        self.order = ""

    def set_state(self, state: Sequence[Any]) -> None:
        """Take the order of the bytes: ``<``, ``>``, ``=`` or ``|``."""
        self.order = state[1]

    @property
    def numeric(self) -> bool:
        """Whether it is one of numbers; texts are none, and to read objects would mean to run them."""
        orders = ("", *"<>=|")
        return self.order in orders and NUMERIC.fullmatch(str(self.code).lstrip("<>=|")) is not None

    def dtype(self) -> np.dtype[Any]:
        """Return the type itself.

        Raises:
            Damaged: If it is not one of numbers.
        """
        if not self.numeric:
            raise Damaged(f"a numpy array of type {self.code!r}, which are no numbers")
        return np.dtype(self.order + self.code.lstrip("<>=|") if self.order else self.code)


class Array:
    """numpy's array, as pickles build it: empty, and then its state. Its numbers are read when asked for."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    @classmethod
    def from_buffer(cls, content: Any, kind: ArrayType, shape: Sequence[int], order: str = "C") -> Array:
        """Make an array from its bytes."""
        array = cls()
        array.state = (1, shape, kind, order == "F", content)
        return array

    def set_state(self, state: Sequence[Any]) -> None:
        """Take version, shape, type, whether columns come first, and the bytes."""
        self.state = tuple(state)

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers."""
        return len(self.state) > 2 and isinstance(self.state[2], ArrayType) and self.state[2].numeric

    def tensor(self) -> Tensor:
        """Read the numbers.

        Raises:
            Damaged: If there are none, or torch has no such type.
        """
        try:
            _, shape, kind, columns_first, content = self.state
            numbers = np.frombuffer(bytes_of(content), kind.dtype()).reshape(shape, order="F" if columns_first else "C")
            return torch.from_numpy(np.array(numbers, numbers.dtype.newbyteorder("="), order="C"))
        except (AttributeError, TypeError, ValueError, MemoryError) as error:
            raise Damaged(f"a numpy array that cannot be ({error})") from None


def scalar(kind: ArrayType, content: Any) -> Any:
    """Return one of numpy's numbers as Python's; what is no number stays as it is."""
    try:
        return np.frombuffer(bytes_of(content), kind.dtype())[0].item()
    except Damaged:
        return content


def bytes_of(content: Any) -> bytes:
    """Return bytes, which Python 2 and the older protocols of pickle wrote as text."""
    return content.encode("latin-1") if isinstance(content, str) else bytes(memoryview(content))
