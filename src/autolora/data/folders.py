"""List the files below a folder. Symbolic links are followed, circles of them are not."""

import os
from collections.abc import Iterator
from pathlib import Path

from autolora.data.sources import File, FileSource, Listing
from autolora.errors import InputError


def list_folder(folder: Path, *, deep: bool = True) -> Listing:
    """Everything below ``folder``, sorted; only what lies in it directly unless ``deep``.

    Raises:
        InputError: ``folder`` or a folder in it may not be listed.
    """
    files, folders = [], []
    for parts, path in walk(folder, deep=deep):
        if path.is_dir():
            folders.append(parts)
        else:
            files.append(File(parts, FileSource(name=str(path), path=path.absolute())))
    return Listing(str(folder), tuple(sorted(files, key=lambda file: file.parts)), frozenset(folders))


def walk(
    folder: Path, parts: tuple[str, ...] = (), ancestors: frozenset[Path] = frozenset(), *, deep: bool = True
) -> Iterator[tuple[tuple[str, ...], Path]]:
    """Folders and files below ``folder`` with their parts relative to it; pipes, sockets and devices are left out.

    A link that leads nowhere is yielded as a file: reading it fails, and the failure names it.
    """
    real = folder.resolve()
    if real in ancestors:  # only a circle is cut: test/ may well be a link to val/
        return
    for entry in scan(folder):
        here, path = (*parts, entry.name), folder / entry.name
        if entry.is_dir():
            yield here, path
            if deep:
                yield from walk(path, here, ancestors | {real})
        elif entry.is_file() or (entry.is_symlink() and not path.exists()):
            yield here, path


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of one folder by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be listed ({error.strerror}); check its permissions") from error
