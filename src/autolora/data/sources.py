"""A source is one image before it is decoded: a readable name and its bytes, wherever they lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from autolora.errors import InputError

MAX_IMAGE_BYTES = 256 * 2**20
"""No honest image file is larger; a zip bomb is. Checked while reading, so a lying header does not help."""


class Source(Protocol):
    """One encoded image. Values: they pickle, compare and may be read from any thread or process."""

    @property
    def name(self) -> str:
        """Readable path, such as ``cifar10.zip:cifar10/train/airplane/0000.jpg``."""

    def read(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            OSError: they cannot be read, or are more than ``MAX_IMAGE_BYTES``. (An archive's own errors pass through.)
        """


class File(NamedTuple):
    """A file of a data set: its path below the data set's root, part by part, and its bytes."""

    parts: tuple[str, ...]
    source: Source


@dataclass(frozen=True)
class Listing:
    """Everything below a root, hidden files and files that are no images included.

    ``folders`` are there because an empty class folder leaves no other trace.
    """

    where: str
    files: tuple[File, ...]
    folders: frozenset[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class FileSource:
    """An image file in a folder."""

    name: str
    path: Path

    def read(self) -> bytes:
        """Return the file's bytes."""
        with self.path.open("rb") as stream:
            return read_bounded(stream)


@dataclass(frozen=True, slots=True)
class BytesSource:
    """An image that is in memory already, encoded in any format that decoding reads."""

    name: str
    data: bytes

    def read(self) -> bytes:
        """Return the bytes."""
        return self.data


@dataclass(frozen=True, slots=True, eq=False)
class PixelSource:
    """An image that some data set holds as pixels: uint8, (H, W) grey or (H, W, 3) RGB.

    It is handed on as a PGM or PPM file, so that it takes the path that files take.
    """

    name: str
    pixels: NDArray[np.uint8]

    def read(self) -> bytes:
        """Return the pixels behind the header of a PGM or PPM file."""
        kind = "P5" if self.pixels.ndim == 2 else "P6"
        height, width = self.pixels.shape[:2]
        return f"{kind} {width} {height} 255\n".encode() + self.pixels.tobytes()


class UnreadableImage(InputError):
    """An image whose bytes cannot be turned into pixels; the message names it."""

    def __init__(self, name: str, reason: str = "") -> None:
        super().__init__(name, reason)  # both in args, so that it pickles out of a worker process
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return printable(
            f"{self.name} cannot be read as an image ({self.reason}); "
            "replace or remove it, or skip such images with --skip-bad-images (skip_bad_images=True)"
        )


def read_bounded(stream: BinaryIO) -> bytes:
    """All that is left in ``stream``; ``OSError`` when that is more than ``MAX_IMAGE_BYTES``."""
    data = stream.read(MAX_IMAGE_BYTES + 1)
    if len(data) > MAX_IMAGE_BYTES:
        raise OSError(f"larger than {MAX_IMAGE_BYTES // 2**20} MiB")
    return data


def path_parts(name: str) -> tuple[str, ...]:
    """Return the parts of an archive member's name; ``./``, doubled and backward slashes (old Windows zips) vanish."""
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def printable(text: str) -> str:
    r"""Return ``text`` in one line: a line break or a terminal's escape in a file name becomes ``\n`` or ``\x1b``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
