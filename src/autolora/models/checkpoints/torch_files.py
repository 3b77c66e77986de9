"""torch's own files: zip archives since 1.6, a sequence of pickles before; and bare pickles, which hold both.

Numbers are read when they are asked for: a checkpoint often holds as many again for its optimizer.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from autolora.models.checkpoints.tensors import Storage, bytes_of
from autolora.models.checkpoints.vocabulary import STORAGE_TYPES, vocabulary
from autolora.pickles import Damaged, Name, Refused, Vocabulary, read_pickle

__all__ = ["read_pickles", "read_zip"]

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of torch's older format
# what zipfile raises for damaged archives: encrypted is a RuntimeError, an unknown compression NotImplementedError
ZIP_ERRORS = (
    *(BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(LookupError, MemoryError, OverflowError, RuntimeError, ValueError),
)


class Storages:
    """The storages of one file, each once, however many tensors view them.

    Args:
        numbers: Gives the bytes of a storage, by its key and size.
    """

    def __init__(self, numbers: Callable[[str, int], bytes]) -> None:
        self.known: dict[str, Storage] = {}
        self._numbers = numbers

    def __call__(self, reference: tuple[Any, ...]) -> Storage:
        """Return the storage that a pickle refers to: ("storage", type, key, device, count).

        Raises:
            Damaged: If it is no reference to a storage.
        """
        kind, storage_type, key, _, count, *view = reference
        if kind != "storage" or not isinstance(storage_type, Name) or not isinstance(key, str) or any(view):
            raise Damaged("a reference to what is no storage")
        if key not in self.known:
            dtype = STORAGE_TYPES[storage_type.dotted]
            self.known[key] = Storage(dtype, count, lambda size: self._numbers(key, size))
        return self.known[key]


def read_zip(path: Path) -> Any:
    """Read an archive of torch's: one pickle, and a record for each storage.

    Raises:
        Refused: If the pickle names what is not in the vocabulary, or the archive holds code.
        Damaged: If it cannot be read, or is another archive.
    """
    try:
        archive = ZipFile(path)
        names = set(archive.namelist())
        roots = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise Damaged("it is a zip archive, and none of torch's")
        root = roots[0]
        if f"{root}constants.pkl" in names:
            raise Refused("of TorchScript, whose archives hold code")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise Damaged("it is from a machine with another order of bytes")
        pickled = _record(archive, f"{root}data.pkl")
    except ZIP_ERRORS as error:
        raise Damaged(f"zip archive: {error or type(error).__name__}") from None
    storages = Storages(lambda key, size: _record(archive, f"{root}data/{key}", size))
    return read_pickle(io.BytesIO(pickled), vocabulary(), storages)


def _record(archive: ZipFile, name: str, size: int | None = None) -> bytes:
    """Read a record, checksum and all; torch compresses none, which a bomb would."""
    try:
        entry = archive.getinfo(name)
        if entry.compress_type != ZIP_STORED:
            raise Damaged(f"record {name} is compressed; unpack the archive and pack it without compression")
        if size is not None and entry.file_size != size:
            raise Damaged(f"record {name} holds {entry.file_size} bytes instead of {size}")
        return archive.read(entry)
    except ZIP_ERRORS as error:
        raise Damaged(f"zip archive: {error or type(error).__name__}") from None


def read_pickles(stream: Any) -> Any:
    """Read a bare pickle, or torch's older format.

    Args:
        stream: A file in memory, or a memory map.

    Raises:
        Refused: If a pickle names what is not in the vocabulary.
        Damaged: If it cannot be read.
    """
    within = vocabulary()  # a tensor in a bare pickle is a file in the file; there is none in that
    return _pickles(stream, vocabulary(lambda content: _pickles(io.BytesIO(bytes_of(content)), within)))


def _pickles(stream: Any, words: Vocabulary) -> Any:
    """Read the older format: magic number, version, machine, contents, keys, and the storages in their order."""
    content = read_pickle(stream, words)
    if not isinstance(content, int) or content != MAGIC:
        return content
    _, machine = read_pickle(stream, words), read_pickle(stream, words)
    if not isinstance(machine, dict) or not machine.get("little_endian", True):
        raise Damaged("it is from a machine with another order of bytes")
    places: dict[str, int] = {}

    def numbers(key: str, size: int) -> bytes:
        stream.seek(places[key])
        return stream.read(size)

    storages = Storages(numbers)
    content = read_pickle(stream, words, storages)
    keys = read_pickle(stream, words)
    if not isinstance(keys, list) or set(map(str, keys)) != storages.known.keys():
        raise Damaged("its storages are not those that it refers to")
    for key in keys:
        places[key] = _skip(stream, storages.known[key])
    return content


def _skip(stream: Any, storage: Storage) -> int:
    """Return where the numbers of a storage begin, and leave the stream behind them."""
    head = stream.read(8)
    if len(head) < 8 or struct.unpack("<q", head)[0] * storage.dtype.itemsize != storage.size:
        raise Damaged("the length of a storage is not what it should be")
    place = stream.tell()
    try:
        stream.seek(place + storage.size)  # a memory map refuses to go beyond its end
    except (ValueError, OverflowError):
        raise Damaged("it ends before its numbers do") from None
    return place
