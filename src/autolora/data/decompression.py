"""Compressed tars as plain ones, and how much may come out of an archive at all."""

import bz2
import gzip
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from autolora.errors import InputError

# by the first bytes of the file
DECOMPRESSORS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
BOMB_RATIO, BOMB_FLOOR = 100, 2**30  # images hardly compress: 100 times the file, once over a GiB, is a bomb
CHUNK = 2**20


def plain(path: Path) -> BinaryIO:
    """Return an open file with the uncompressed bytes of ``path``."""
    stream = path.open("rb")
    head = stream.read(8)
    stream.seek(0)
    for magic, decompressor in DECOMPRESSORS.items():
        if head.startswith(magic):
            with stream, decompressor(path, "rb") as compressed:
                return decompressed(cast(IO[bytes], compressed), path)
    return stream


def decompressed(compressed: IO[bytes], path: Path) -> BinaryIO:
    """Return a copy of ``compressed`` in a temporary file that has no name and goes with the last handle."""
    limit = most_bytes(path)
    target = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  it outlives this function on purpose
    while chunk := compressed.read(CHUNK):
        write(target, chunk, path)
        if target.tell() > limit:
            raise bomb(path)
    target.seek(0)
    return target


def most_bytes(path: Path) -> int:
    """Return how many bytes may come out of an archive."""
    return max(BOMB_FLOOR, BOMB_RATIO * path.stat().st_size)


def bomb(path: Path) -> InputError:
    """Return what to say of an archive out of which more comes."""
    return InputError(f"{path} grows to more than {BOMB_RATIO} times its size; unpack it and give the folder")


def write(target: BinaryIO, chunk: bytes, path: Path) -> None:
    """Write to the temporary file; a full disk is no fault of the archive, and is told apart from one."""
    try:
        target.write(chunk)
    except OSError as error:
        raise InputError(
            f"{path} cannot be decompressed in {tempfile.gettempdir()} ({error.strerror}); "
            "make room, set TMPDIR to another folder, or unpack it and give the folder"
        ) from error
