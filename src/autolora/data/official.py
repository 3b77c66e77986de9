"""Official archives of published data sets: where they lie on this machine, and what is in them.

An archive is read in place, as it was downloaded; a copy that somebody has unpacked is as good. Below the data root
both may lie at the top or in a folder that has the name of the set, which is also where torchvision puts them.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autolora.data.archives import list_archive
from autolora.data.folders import list_folder
from autolora.data.sources import File, Source
from autolora.errors import InputError

ROOT_VARIABLE = "AUTOLORA_DATA"
DEFAULT_ROOT = "~/.cache/autolora/data"


@dataclass(frozen=True)
class Package:
    """One archive as its authors publish it.

    Args:
        archive: Its file name.
        folder: The folder that it unpacks to; empty where its files lie at the top.
        marks: Files in it that are in nothing else; a folder with one of them is an unpacked copy, whatever its name.
        site: The folder on the web that it lies in, with a slash at the end.
        size: Of the download, for people.
        md5: Of the download, where its authors or torchvision publish one.
        other_form: The same images in another archive, which is as good.
    """

    archive: str
    folder: str
    marks: tuple[str, ...]
    site: str
    size: str
    md5: str = ""
    other_form: "Package | None" = None

    @property
    def address(self) -> str:
        """Return where it is published."""
        return f"{self.site}{self.archive}"


@dataclass(frozen=True)
class Contents:
    """The files of a package by their path in it, such as ``images/001.Auk/1.jpg``."""

    where: str
    files: Mapping[str, Source]

    def read(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            InputError: it is missing or damaged.
        """
        if path not in self.files:
            raise InputError(f"{self.where} lacks {path}; it is incomplete, so unpack or download it again")
        try:
            return self.files[path].read()
        except Exception as error:  # of damaged archives anything comes: OSError, zlib.error, BadZipFile, EOFError
            raise InputError(f"{self.where}: {path} cannot be read ({error}); download it again") from error

    def lines(self, path: str) -> list[str]:
        """Return the lines of a text file, without those at its end that are empty.

        Raises:
            InputError: it is missing, damaged or no text.
        """
        try:
            return self.read(path).decode("utf-8").rstrip().splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{self.where}: {path} is no text ({error}); download it again") from error

    def file(self, path: str, *parts: str) -> File:
        """Return the image at ``path``, to be known as ``parts`` below the data set's root."""
        return File(parts, self.files[path])


def data_root(given: str | Path | None = None) -> Path:
    """Return the folder of named data sets: as given, or ``$AUTOLORA_DATA``, or ``~/.cache/autolora/data``."""
    return Path(given or os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT).expanduser()


def locate(package: Package, root: Path, name: str) -> Contents | None:
    """Return what is in ``package``, unpacked or not, below ``root`` or its folder ``name``; None if it is not there.

    Raises:
        InputError: it is there, and cannot be read.
    """
    bases = (root / name, root)
    folders = [base / package.folder for base in bases if package.folder]
    for folder in [*folders, *bases]:
        if any((folder / mark).is_file() for mark in package.marks):
            return unpacked(package, folder)
    for base in bases:
        if (base / package.archive).is_file():
            return packed(package, base / package.archive)
    for folder in folders:
        if folder.is_dir():
            return unpacked(package, folder)
    return locate(package.other_form, root, name) if package.other_form is not None else None


def unpacked(package: Package, folder: Path) -> Contents:
    """Return the files of an unpacked copy; of a package without a folder of its own, only those that are its marks."""
    if package.folder:
        return Contents(str(folder), by_path(list_folder(folder).files))
    files = by_path(list_folder(folder, deep=False).files)
    return Contents(str(folder), {path: source for path, source in files.items() if path in package.marks})


def packed(package: Package, archive: Path) -> Contents:
    """Return the files in an archive, without the folder that it unpacks to."""
    files = by_path(list_archive(archive).files)
    if not package.folder:
        return Contents(str(archive), files)
    start = package.folder + "/"
    inside = {path.removeprefix(start): source for path, source in files.items() if path.startswith(start)}
    if not inside:
        raise InputError(
            f"{archive} holds no folder {package.folder}, so it is not the {package.archive} of {package.address}; "
            "download it there"
        )
    return Contents(str(archive), inside)


def by_path(files: Sequence[File]) -> dict[str, Source]:
    """Return the sources by their path."""
    return {"/".join(file.parts): file.source for file in files}


def absent(name: str, packages: Sequence[Package], root: Path, licence: str, fetchable: bool) -> InputError:
    """Return what to say of a set that is not there: which files to get, where, how large, under what terms."""
    files = " and ".join(f"{package.archive} ({package.size}) from {package.address}" for package in packages)
    here = f"; what lies here under that name is ./{name}" if Path(name).exists() else ""
    how = f"fetch it with `autolora datasets --download {name}`, or " if fetchable else ""
    return InputError(
        f"the data set {name} is not in {root}; {how}get {files} and put {'it' if len(packages) == 1 else 'them'} "
        f"there, packed or unpacked, or set {ROOT_VARIABLE} to the folder where it is{here}. Terms: {licence}"
    )
