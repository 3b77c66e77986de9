"""From what the user calls DATA to training, validation and test images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autolora.data.archives import list_archive
from autolora.data.checks import check, listed
from autolora.data.division import Images, divide
from autolora.data.folders import list_folder
from autolora.data.imageset import Augmentation, ImageSet
from autolora.data.layout import Tree, arrange
from autolora.data.named import NAMED_SETS, planned
from autolora.data.pixels import pixels_for
from autolora.data.reading import Reading, read_all
from autolora.errors import InputError

SMALLEST_IMAGE = 8


@dataclass(frozen=True)
class Splits:
    """A data set, divided.

    Args:
        train: Training images; they come augmented.
        val: Images to select on, never augmented.
        test: Held-out images, never augmented.
        classes: Class names; a label is an index into them.
        notes: What the user should know about how the data were read and divided, a sentence each.
        fingerprint: SHA-256 over paths below the root, labels and contents of all images. It does not depend on where
            the data lie, on whether they are packed, or on the seed.
    """

    train: ImageSet
    val: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    fingerprint: str


def load_splits(
    data: str | Path,
    *,
    image_size: int,
    seed: int = 0,
    val_fraction: float | None = None,
    test_fraction: float = 0.2,
    label_fraction: float = 1.0,
    augmentation: Augmentation | Literal["auto"] = "auto",
    skip_bad_images: bool = False,
    classes: Sequence[str] | None = None,
    progress: bool = True,
) -> Splits:
    """Read, check and divide a data set. Every image is decoded once here; nothing is written.

    Args:
        data: A folder or an archive (zip, tar, compressed tar) of class folders, with or without train/ [val/] test/
            above them, or the name of one of `NAMED_SETS`.
        image_size: S, in pixels; images come as (3, S, S). From 96 on the photo pipeline is used.
        seed: Determines the division, which is stratified by class.
        val_fraction: Share of the training images to validate on where the data have no val/. None chooses: 5 %, or
            what brings the standard error to 2 points, up to 20 %.
        test_fraction: Share of all images to hold out where the data have no test split.
        label_fraction: Share of the remaining training images to train on, at least one of each class.
        augmentation: Of training images. "auto" is crop and flip, or what a named set says is right for it.
        skip_bad_images: Leave out images that cannot be read, with a note, instead of refusing the data set.
        classes: Use only these, and in this order.
        progress: Show a bar on stderr while images are read.

    Raises:
        InputError: the data cannot be found, read, or divided as asked.
    """
    check_options(image_size, val_fraction, test_fraction, label_fraction)
    tree, default = find(data)
    tree = tree if classes is None else tree.only(classes)
    check(tree)
    files = tree.files()
    pixels = pixels_for([file.source for file in files], image_size)
    reading = read_all([file.source for file in files], pixels, progress=progress)
    tree = without_failures(tree, reading, skip_bad_images)
    check(tree)
    row = {file.source.name: row for row, file in enumerate(files)}
    images = Images(pixels, row, default if augmentation == "auto" else augmentation)
    train, val, test, division = divide(tree, images, seed, val_fraction, test_fraction, label_fraction)
    fingerprint = fingerprint_of(tree, {name: reading.digests.get(row[name], "") for name in row})
    notes = (*tree.notes, *enlarged_note(reading, image_size), *division)
    return Splits(train.with_augmentation(True), val, test, tuple(tree.train), notes, fingerprint)


def check_options(image_size: int, val_fraction: float | None, test_fraction: float, label_fraction: float) -> None:
    """Raise what no data set could satisfy."""
    if image_size < SMALLEST_IMAGE:
        raise InputError(f"image_size={image_size} is too small to see anything; give at least {SMALLEST_IMAGE} pixels")
    for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if value is not None and not 0 < value < 1:
            raise InputError(
                f"{name}={value} is not a share of the images; give a number between 0 and 1, such as 0.05"
            )
    if not 0 < label_fraction <= 1:
        raise InputError(
            f"label_fraction={label_fraction} is not a share of the labels; give a number above 0, up to 1"
        )


def find(data: str | Path) -> tuple[Tree, Augmentation]:
    """Return the images that ``data`` names, and how a training image may be altered.

    A string that is the name of a named set is that set, whatever lies in the current folder; a Path is always a path.
    """
    if isinstance(data, str) and data in NAMED_SETS:
        return NAMED_SETS[data].load(), NAMED_SETS[data].augmentation
    path = Path(data).expanduser()
    known = ", ".join(NAMED_SETS)
    if not path.exists():
        if planned(str(data)):
            raise InputError(
                f"the data set {str(data)!r} is not built in yet (named sets now: {known}); "
                "give a folder or an archive of class folders instead"
            )
        raise InputError(f"{data} does not exist; give a folder, an archive or a named set ({known})")
    return arrange(list_folder(path) if path.is_dir() else list_archive(path)), "crop-flip"


def without_failures(tree: Tree, reading: Reading, skip: bool) -> Tree:
    """Return the tree without unreadable images, which are an error unless ``skip``."""
    failures = list(reading.failures.values())
    if not failures:
        return tree
    if not skip:
        if len(failures) == 1:
            raise failures[0]
        raise InputError(f"{len(failures)} of {len(tree.files())} images are bad; the first: {failures[0]}")
    names = [failure.name for failure in failures]
    note = f"skipped {len(names)} of {len(tree.files())} images that cannot be read: {listed(names, shown=20)}"
    return tree.without(names, note)


def enlarged_note(reading: Reading, size: int) -> list[str]:
    """How many images have fewer pixels than the network will be shown."""
    small = sum(shorter < size for shorter in reading.shorter.values())
    return [f"{small} of {len(reading.shorter)} images are smaller than {size} pixels and were enlarged"] * bool(small)


def fingerprint_of(tree: Tree, digests: dict[str, str]) -> str:
    """SHA-256 over (path below the root, label, SHA-256 of the content) of every image."""
    lines = [
        f"{'/'.join(file.parts)}\t{label}\t{digests[file.source.name]}\n"
        for split in tree.splits.values()
        for label, name in enumerate(tree.train)
        for file in split[name]
    ]
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()
