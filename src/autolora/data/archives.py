"""Images inside a zip or a tar. No member is ever written to disk under a name.

Zip members are read through `zipfile`, members of a tar by their offset. A compressed tar has no random access, so it
is decompressed once into an anonymous temporary file. Both archive objects open their file when first used in a
process, which is what lets a `torch.utils.data.DataLoader` send them to forked or spawned workers.
"""

import bz2
import gzip
import lzma
import os
import posixpath
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from autolora.data.sources import MAX_IMAGE_BYTES, File, Listing, path_parts, read_bounded
from autolora.errors import InputError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".tbz2", ".bz2", ".txz", ".xz")
# by the first bytes of the file
DECOMPRESSORS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, ValueError)
BOMB_RATIO, BOMB_FLOOR = 100, 2**30  # images hardly compress: 100 times the file, once over a GiB, is a bomb
CHUNK = 2**20


def list_archive(path: Path) -> Listing:
    """Everything inside the archive ``path``, sorted; its kind is told by its content, not by its name.

    Raises:
        InputError: it is no archive, or is damaged, encrypted or a decompression bomb.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check what it is and its permissions") from error
    try:
        return list_zip(path) if head.startswith(b"PK") else list_tar(path)
    except InputError:
        raise
    except DAMAGED as error:
        if path.name.lower().endswith(ARCHIVE_SUFFIXES):
            advice = "the archive is damaged or incomplete; download or pack it again"
        else:
            advice = "it is neither a folder nor a zip or tar archive; give a folder of class folders or an archive"
        raise InputError(f"{path} cannot be opened ({error}): {advice}") from error


def list_zip(path: Path) -> Listing:
    """Everything inside a zip."""
    archive = ZipArchive(path)
    files: dict[tuple[str, ...], File] = {}
    folders = set()
    for info in archive.open().infolist():
        parts = path_parts(info.filename)
        if info.is_dir():
            folders.add(parts)
        elif info.flag_bits & 0x1:
            raise InputError(f"{path} is encrypted ({info.filename}); unpack it and give the folder")
        else:  # of two members with one name the last counts, as in zipfile
            files[parts] = File(parts, ZipMember(f"{path}:{info.filename}", archive, info.filename))
    return listing(path, files, folders)


def list_tar(path: Path) -> Listing:
    """Everything inside a tar, compressed or not; links to other members are resolved."""
    archive = TarArchive(path)
    files: dict[tuple[str, ...], File] = {}
    folders = set()
    with tarfile.open(fileobj=archive.open(), mode="r:") as tar:
        members = {posixpath.normpath(member.name): member for member in tar.getmembers()}
    for name, member in members.items():
        parts = path_parts(name)
        target = follow(member, members)
        if member.isdir():
            folders.add(parts)
        elif target is not None:
            files[parts] = File(parts, TarMember(f"{path}:{name}", archive, target.offset_data, target.size))
    return listing(path, files, folders)


def follow(member: tarfile.TarInfo, members: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """Return the regular file that ``member`` is or links to; None for folders, devices, sparse files, lost links."""
    for _ in range(8):  # a chain of links longer than that is a circle
        if member.isreg():
            return None if member.issparse() else member
        base = posixpath.dirname(member.name) if member.issym() else ""  # a hard link counts from the root
        target = members.get(posixpath.normpath(posixpath.join(base, member.linkname))) if member.linkname else None
        if target is None:
            return None
        member = target
    return None


def listing(path: Path, files: dict[tuple[str, ...], File], folders: set[tuple[str, ...]]) -> Listing:
    """Sorted, with the folders that only show in the names of their files."""
    folders |= {parts[:depth] for parts in files for depth in range(1, len(parts))}
    return Listing(str(path), tuple(files[parts] for parts in sorted(files)), frozenset(folders - {()}))


class ZipArchive:
    """A zip that each process opens for itself: a file position shared with a forked parent would race."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = threading.Lock()
        self._handle: tuple[int, zipfile.ZipFile] | None = None

    def open(self) -> zipfile.ZipFile:
        """Return this process's handle; `zipfile` makes reading from it safe among threads."""
        with self._lock:
            if self._handle is None or self._handle[0] != os.getpid():
                self._handle = (os.getpid(), zipfile.ZipFile(self.path))
            return self._handle[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return ZipArchive, (self.path,)


class TarArchive:
    """The plain bytes of a tar, readable anywhere by any thread; a forked child shares them, a spawned one reopens."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = threading.Lock()
        self._handle: BinaryIO | None = None

    def open(self) -> BinaryIO:
        """Return the tar itself, or the anonymous file it was decompressed into."""
        with self._lock:
            if self._handle is None:
                self._handle = plain(self.path)
            return self._handle

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``; no shared file position is moved where the system can do without."""
        stream = self.open()
        if hasattr(os, "pread"):
            data = os.pread(stream.fileno(), size, offset)
        else:  # Windows, where nothing is forked and the lock is enough
            with self._lock:
                stream.seek(offset)
                data = stream.read(size)
        if len(data) != size:
            raise OSError("the archive ends before the image does")
        return data

    def __reduce__(self) -> tuple[Any, ...]:
        return TarArchive, (self.path,)


@dataclass(frozen=True, slots=True)
class ZipMember:
    """An image in a zip."""

    name: str
    archive: ZipArchive
    member: str

    def read(self) -> bytes:
        """Return the decompressed bytes; `zipfile.BadZipFile` when their checksum is wrong."""
        with self.archive.open().open(self.member) as stream:
            return read_bounded(cast(BinaryIO, stream))


@dataclass(frozen=True, slots=True)
class TarMember:
    """An image in a tar: ``size`` bytes from ``offset``."""

    name: str
    archive: TarArchive
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the bytes."""
        if self.size > MAX_IMAGE_BYTES:
            raise OSError(f"larger than {MAX_IMAGE_BYTES // 2**20} MiB")
        return self.archive.read_at(self.offset, self.size)


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
    limit = max(BOMB_FLOOR, BOMB_RATIO * path.stat().st_size)
    target = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  it outlives this function on purpose
    while chunk := compressed.read(CHUNK):
        write(target, chunk, path)
        if target.tell() > limit:
            raise InputError(f"{path} grows to more than {BOMB_RATIO} times its size; unpack it and give the folder")
    target.seek(0)
    return target


def write(target: BinaryIO, chunk: bytes, path: Path) -> None:
    """Write to the temporary file; a full disk is no fault of the archive, and is told apart from one."""
    try:
        target.write(chunk)
    except OSError as error:
        raise InputError(
            f"{path} cannot be decompressed in {tempfile.gettempdir()} ({error.strerror}); "
            "make room, set TMPDIR to another folder, or unpack it and give the folder"
        ) from error
