"""Files of weights, told apart by their first bytes and never by their name, and read without running anything."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from struct import unpack
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from autolora.errors import InputError
from autolora.models.checkpoints.names import shown
from autolora.models.checkpoints.tensors import Array, StoredTensor
from autolora.models.checkpoints.torch_files import read_pickles, read_zip
from autolora.pickles import Damaged, Refused

__all__ = ["DamagedSafetensors", "read_file", "reporting", "tensors_in"]

OTHER_FILES = {
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a numpy array",
    b"\x1f\x8b": "compressed with gzip; unpack it",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file",
    b"<": "a web page",
}
TEXT = frozenset((*range(0x20, 0x7F), *b"\t\n\r"))  # of what people write; pickles of protocol 0 too
TAR_PLACE, TAR = slice(257, 262), b"ustar"


class DamagedSafetensors(Damaged):
    """A file that begins as safetensors do, and does not go on so."""


def read_file(path: Path) -> Any:
    """Read what a file of weights holds; :func:`tensors_in` reads the tensors in it.

    Raises:
        Refused: If it names what is not in the vocabulary.
        Damaged: If it cannot be read, or is something else.
        OSError: If it cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(512)
        if head.startswith(b"PK"):
            return read_zip(path)
        if _is_safetensors(head, path.stat().st_size):
            return _safetensors(path)
        if what := _other_file(head):
            raise Damaged(f"it is {what}")
        try:
            return read_pickles(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except Damaged:
            if not TEXT.issuperset(head):
                raise
            raise Damaged("it is a text, which holds no weights") from None


def tensors_in(content: Any) -> dict[str, Tensor]:
    """Read the tensors that a dictionary holds under a name.

    Raises:
        Damaged: If the file does not hold their numbers.
    """
    if not isinstance(content, Mapping):
        return {}
    return {
        name: value if isinstance(value, Tensor) else value.tensor()
        for name, value in content.items()
        if isinstance(name, str) and _is_tensor(value)
    }


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Say in the user's words what is wrong with a file.

    Raises:
        InputError: In place of what :func:`read_file` and :func:`tensors_in` raise.
    """
    try:
        yield
    except Refused as refused:
        raise InputError(
            f"weights {path}: refused, since loading it could run code (global {shown(str(refused))}); save its state "
            "dict alone (torch.save(model.state_dict(), ...) or safetensors) and give that file"
        ) from None
    except (Damaged, OSError) as error:
        what = "file" if isinstance(error, OSError) else "checkpoint"
        what = "safetensors file" if isinstance(error, DamagedSafetensors) else what
        reason = shown(" ".join(str(error).split()))
        raise InputError(f"weights {path}: not a readable {what} ({reason}); fetch it again") from None


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | StoredTensor) or (isinstance(value, Array) and value.numeric)


def _other_file(head: bytes) -> str | None:
    if not head:
        return "empty"
    if head[TAR_PLACE] == TAR:
        return "a tar archive, as torch wrote before 2017; unpack it if there is a checkpoint in it"
    return next((what for start, what in OTHER_FILES.items() if head.startswith(start)), None)


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file begins with the length of a header in JSON, and the header."""
    return len(head) > 8 and head[8:9] == b"{" and unpack("<Q", head[:8])[0] <= size - 8


def _safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return load_file(path)
    except (SafetensorError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedSafetensors(str(error)) from None
