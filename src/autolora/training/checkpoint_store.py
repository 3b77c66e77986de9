"""Files that are there whole or not at all, and folders of them that know by checksum whether they still are.

A folder is written beside the one it replaces, synced to the disk, read back, and only then renamed. So a kill or a
power cut at any moment leaves a whole folder, and what has been damaged since is found when it is read.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from autolora.errors import RunError

logger = logging.getLogger(__name__)

T = TypeVar("T")

MANIFEST = "manifest.json"
FILES = "sha256"  # of the manifest: the files and their checksums


class Damaged(ValueError):
    """A folder does not hold what was written to it; the message says how, for a sentence that begins with its name."""


class Link(NamedTuple):
    """A file that exists already, and its checksum."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Generations:
    """A folder that is replaced as a whole, and the one before it, which is kept in case it is damaged.

    Args:
        folder: The newest.
        previous: The one before.
    """

    folder: Path
    previous: Path

    def write(self, files: Mapping[str, bytes], links: Mapping[str, Link], facts: Mapping[str, Any]) -> None:
        """Replace the folder; the one that was there becomes the previous one when the new one has been verified.

        Args:
            files: Contents by name.
            links: Files that exist already, and are not written a second time where the file system has hard links.
            facts: What else the manifest says, for people; plain JSON.

        Raises:
            OSError: If it cannot be written, or not read back as it was; then all is as it was before.
        """
        new = self.folder.with_name(f".{self.folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
        try:
            new.mkdir(parents=True)
            _fill(new, files, links, facts)
            _verify(new)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        if self.folder.exists():  # if not, a kill came between the two renames, and the previous one is all there is
            shutil.rmtree(self.previous, ignore_errors=True)
            self.folder.rename(self.previous)
        new.rename(self.folder)
        sync_folder(self.folder.parent)

    def read(self, understand: Callable[[dict[str, bytes]], T]) -> T | None:
        """Return what the newest whole folder holds, or None if there is no folder; a damaged one is named aloud.

        Args:
            understand: Makes it of the files by name; raises ``Damaged`` where their content cannot be right.

        Raises:
            RunError: If there are folders, and all of them are damaged.
        """
        damages: list[str] = []
        for folder in (self.folder, self.previous):
            if not folder.exists():
                continue
            try:
                found = understand(read_whole(folder))
            except Damaged as damage:
                damages.append(f"{folder} {damage}")
                continue
            if damages:
                logger.warning(f"damaged checkpoint: {damages[0]}; going on from {folder}, which is whole")
            return found
        if damages:
            raise RunError(f"no whole checkpoint is left: {'; '.join(damages)}; start a new run with another --out")
        return None

    def drop_previous(self) -> None:
        """Give back the space of the previous one, when there is nothing left to continue."""
        shutil.rmtree(self.previous, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a kill leaves the old content or the new one, and read it back.

    Raises:
        OSError: If it cannot be written, or not read back as it was; then the old content is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    try:
        _write(new, data)
        if digest(new.read_bytes()) != digest(data):
            raise OSError(errno.EIO, "what was written cannot be read back", str(path))
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_whole(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by name.

    Raises:
        Damaged: If one is missing or not what was written.
    """
    try:
        sums: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))[FILES]
        files = {name: _own_file(folder, name).read_bytes() for name in sums}
    except FileNotFoundError as error:
        raise Damaged(f"lacks {Path(error.filename).name}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"cannot be read ({type(error).__name__})") from error
    for name, data in files.items():
        if digest(data) != sums[name]:
            raise Damaged(f"is damaged: {name} is not what was written")
    return files


def _own_file(folder: Path, name: str) -> Path:
    """Return a file of a folder: no other folder's, and no device, whose end nobody has seen."""
    if Path(name).name != name or ((path := folder / name).exists() and not path.is_file()):
        raise ValueError(f"{name} is no file of its own")
    return path


def digest(data: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    return sha256(data).hexdigest()


def sync_folder(folder: Path) -> None:
    """Have the disk know the names in a folder; where folders cannot be opened, there is nothing to do."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(folder: Path, files: Mapping[str, bytes], links: Mapping[str, Link], facts: Mapping[str, Any]) -> None:
    for name, data in files.items():
        _write(folder / name, data)
    for name, link in links.items():
        _link(link.path, folder / name)
    sums = {name: digest(data) for name, data in files.items()} | {name: link.sha256 for name, link in links.items()}
    _write(folder / MANIFEST, (json.dumps({**facts, FILES: sums}, indent=2) + "\n").encode())
    sync_folder(folder)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has hard links
        _write(target, source.read_bytes())


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _verify(folder: Path) -> None:
    try:
        read_whole(folder)
    except Damaged as damage:
        raise OSError(errno.EIO, f"what was written cannot be read back: it {damage}", str(folder)) from damage
