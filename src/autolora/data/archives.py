"""Images inside a zip or a tar. No member is ever written to disk under a name.

Zip members are read through `zipfile`, members of a tar by their offset. A compressed tar has no random access, so it
is decompressed once into an anonymous temporary file. Both archive objects open their file when first used in a
process, which is what lets a `torch.utils.data.DataLoader` send them to forked or spawned workers.
"""

import lzma
import os
import posixpath
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from autolora.data.decompression import bomb, most_bytes, plain
from autolora.data.sources import MAX_IMAGE_BYTES, File, Listing, path_parts, printable, read_bounded
from autolora.errors import InputError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".tbz2", ".bz2", ".txz", ".xz")
DAMAGED: tuple[type[Exception], ...] = (
    *(OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, struct.error),
    *(ValueError, LookupError, ArithmeticError, NotImplementedError, RecursionError, MemoryError),
)
"""What the readers of archives raise for bytes that are none."""


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
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be opened ({reason}): {advice}") from error


def list_zip(path: Path) -> Listing:
    """Everything inside a zip."""
    archive = ZipArchive(path)
    files: dict[tuple[str, ...], File] = {}
    folders = set()
    members = archive.open().infolist()
    if sum(info.file_size for info in members) > most_bytes(path):  # no member gives more than it declares
        raise bomb(path)
    for info in members:
        parts = path_parts(info.filename)
        if info.is_dir():
            folders.add(parts)
        elif info.flag_bits & 0x1:
            raise InputError(f"{path} is encrypted ({printable(info.filename)}); unpack it and give the folder")
        else:  # of two members with one name the last counts, as in zipfile
            files[parts] = File(parts, ZipMember(f"{path}:{info.filename}", archive, info.filename))
    return listing(path, files, folders)


def list_tar(path: Path) -> Listing:
    """Everything inside a tar, compressed or not; links to other members are resolved."""
    archive = TarArchive(path)
    files: dict[tuple[str, ...], File] = {}
    folders = set()
    with tarfile.open(fileobj=archive.open(), mode="r:") as tar:
        members = {posixpath.normpath(member.name): member for member in forward(tar)}
    for name, member in members.items():
        parts = path_parts(name)
        target = follow(member, members)
        if member.isdir():
            folders.add(parts)
        elif target is not None:
            files[parts] = File(parts, TarMember(f"{path}:{name}", archive, target.offset_data, target.size))
    return listing(path, files, folders)


def forward(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar, each of which must begin behind the one before.

    A negative size, which a header can hold, would send `tarfile` back to where it was, for ever.
    """
    reached = -1
    while (member := tar.next()) is not None:
        if member.offset_data <= reached or member.size < 0:
            raise tarfile.ReadError(f"member {member.name!r:.60} has no possible size")
        reached = member.offset_data
        yield member


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
    files.pop((), None)  # called "." or "/"
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
