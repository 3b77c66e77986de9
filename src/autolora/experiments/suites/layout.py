"""Data whose validation images are the test images, for protocols that select on test images; and say so.

Training never sees a test split, so a protocol that selects on one gets data of another layout: ``val/`` is ``test/``.
A folder whose name says this lies beside them, and every run on such data has that name among the notes of its
``result.json``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from autolora.data.finding import Found, find
from autolora.data.layout import Classes, Tree
from autolora.data.sources import File, FileSource
from autolora.errors import InputError
from autolora.experiments.selection import LABEL


def validated_on_test(data: str, folder: Path) -> Path:
    """Lay data out with their test images for validation, once; return the folder.

    Files are linked where they are files, and written where they lie in an archive. Their order is that of the data, so
    that a seed draws the same images from it.

    Args:
        data: A folder, an archive or a named set that comes with test images.
        folder: Where it goes.

    Raises:
        InputError: If the data have no test images of their own or ask for an augmentation of their own, or cannot be
            read.
    """
    if (folder / LABEL).is_dir():  # made last
        return folder
    found = find(data)
    if found != Found(found.tree):
        raise InputError(
            f"{data} has training images altered in a way of its own, which a folder of images cannot say; leave the "
            "habit select-on-test out"
        )
    if found.tree.test is None:
        raise InputError(
            f"{data} has no test split, so there is none to select on: a run draws its test images by its seed; give "
            "data with train/ and test/, or leave the habit select-on-test out"
        )
    unfinished = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    _write(found.tree, unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return folder


def _write(tree: Tree, folder: Path) -> None:
    assert tree.test is not None
    for split, classes in (("train", tree.train), ("test", tree.test)):
        _write_split(classes, folder / split)
    (folder / "val").symlink_to("test", target_is_directory=True)
    (folder / LABEL).mkdir()


def _write_split(classes: Classes, folder: Path) -> None:
    for name, files in classes.items():
        (folder / name).mkdir(parents=True)
        for number, file in enumerate(files):
            _write_file(file, folder / name / f"{number:06d}-{file.parts[-1]}")


def _write_file(file: File, path: Path) -> None:
    if isinstance(file.source, FileSource):
        os.symlink(file.source.path, path)
    else:
        path.write_bytes(file.source.read())
