"""From what the user calls DATA to training, validation and test images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from autolora.data.checks import check, listed
from autolora.data.division import Images, divide
from autolora.data.finding import Found, find
from autolora.data.imageset import Augmentation, ImageSet
from autolora.data.layout import Split, Tree
from autolora.data.pixels import CACHE_BYTES, SmallPixels, pixels_for
from autolora.data.reading import Reading, copy_notes, read_all
from autolora.data.sources import printable
from autolora.errors import InputError

SMALLEST_IMAGE = 8
SHRUNK = 3  # times smaller: from here on it is worth a note
TestSplit = Literal["given", "held out"]


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
        test_split: Whether the data came with test images, or they were drawn, by the seed.
    """

    train: ImageSet
    val: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    fingerprint: str
    test_split: TestSplit = "given"

    def record(self) -> dict[str, Any]:
        """Return which images are in which split, for a run to keep.

        An index counts the images of the data set that ``fingerprint`` tells, in the order of splits, classes and
        paths as the data have them; one that is skipped as unreadable keeps its number.
        """
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {"fingerprint": self.fingerprint, **{name: list(part.rows) for name, part in parts.items()}}

    def on(self, device: torch.device) -> "Splits":
        """Return the same splits with small images on a device, where their batches are then cut and augmented.

        Batches are the same, bit for bit. Photos, and more than 2 GiB of small images, stay where they are.
        """
        pixels = self.train.pixels
        if device.type == "cpu" or not isinstance(pixels, SmallPixels) or pixels.images.nbytes > CACHE_BYTES:
            return self
        moved = pixels.on(device)
        train, val, test = (replace(part, pixels=moved) for part in (self.train, self.val, self.test))
        return replace(self, train=train, val=val, test=test)


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
    data_root: str | Path | None = None,
    progress: bool = True,
) -> Splits:
    """Read, check and divide a data set. Every image is decoded once here; nothing is written.

    Args:
        data: A folder or an archive (zip, tar, compressed tar) of class folders, with or without train/ [val/] test/
            above them, a .csv of paths and labels, or the name of a data set (`known_sets`).
        image_size: S, in pixels; images come as (3, S, S). From 96 on the photo pipeline is used.
        seed: Determines the division, which is stratified by class.
        val_fraction: Share of the training images to validate on where the data have no val/. None chooses: 5 %, or
            what brings the standard error to 2 points, up to 20 %.
        test_fraction: Share of all images to hold out where the data have no test split.
        label_fraction: Share of the remaining training images to train on, at least one of each class.
        augmentation: Of training images. "auto" is crop and flip, or what a named set says is right for it.
        skip_bad_images: Leave out images that cannot be read, with a note, instead of refusing the data set.
        classes: Use only these, and in this order.
        data_root: Where named sets lie; by default ``$AUTOLORA_DATA`` or ``~/.cache/autolora/data``.
        progress: Show a bar on stderr while images are read.

    Raises:
        InputError: the data cannot be found, read, or divided as asked.
    """
    check_options(image_size, val_fraction, test_fraction, label_fraction)
    found, tree = arranged(data, classes, data_root)
    files = tree.files()
    pixels = pixels_for([file.source for file in files], image_size, photo_size=found.photo_size, shift=found.shift)
    reading = read_all([file.source for file in files], pixels, progress=progress)
    tree = without_failures(tree, reading, skip_bad_images)
    check(tree)
    row = {file.source.name: row for row, file in enumerate(files)}
    images = Images(pixels, row, found.augmentation if augmentation == "auto" else augmentation)
    train, val, test, division = divide(tree, images, seed, val_fraction, test_fraction, label_fraction)
    fingerprint = fingerprint_of(tree, {name: reading.digests.get(row[name], "") for name in row})
    notes = (*tree.notes, *size_notes(reading, image_size), *copy_notes(reading, train.rows, test.rows), *division)
    readable = tuple(map(printable, notes))  # names of files are in them
    test_split: TestSplit = "held out" if tree.test is None else "given"
    return Splits(train.with_augmentation(True), val, test, tuple(tree.train), readable, fingerprint, test_split)


@dataclass(frozen=True)
class Part:
    """One split of a data set; what its fields mean is said at `Splits`."""

    images: ImageSet
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    fingerprint: str


def load_part(
    data: str | Path,
    *,
    split: Split,
    image_size: int,
    seed: int = 0,
    val_fraction: float | None = None,
    test_fraction: float = 0.2,
    label_fraction: float = 1.0,
    skip_bad_images: bool = False,
    classes: Sequence[str] | None = None,
    data_root: str | Path | None = None,
    progress: bool = True,
) -> Part:
    """Return one split of what `load_splits` gives, not augmented.

    The images of the others are read, since the fingerprint is of all of them, and not decoded: a bad one among them is
    not found. With ``skip_bad_images`` all are decoded, since the division is of those that can be.

    Args:
        data: As for `load_splits`, and so for all that follow.
        split: Which one.
        image_size: S, in pixels.
        seed: Of the division.
        val_fraction: Share of the training images to validate on.
        test_fraction: Share of all images to hold out.
        label_fraction: Share of the training images to use.
        skip_bad_images: Leave out images that cannot be read.
        classes: Use only these, and in this order.
        data_root: Where named sets lie.
        progress: Show a bar on stderr while images are read.

    Raises:
        InputError: the data cannot be found, read, or divided as asked.
    """
    if skip_bad_images:
        options: dict[str, Any] = {"seed": seed, "val_fraction": val_fraction, "test_fraction": test_fraction}
        options |= {"label_fraction": label_fraction, "classes": classes, "data_root": data_root, "progress": progress}
        whole = load_splits(data, image_size=image_size, skip_bad_images=True, **options)
        return Part(getattr(whole, split).with_augmentation(False), whole.classes, whole.notes, whole.fingerprint)
    check_options(image_size, val_fraction, test_fraction, label_fraction)
    found, tree = arranged(data, classes, data_root)
    files = tree.files()
    row = {file.source.name: row for row, file in enumerate(files)}
    pixels = pixels_for([file.source for file in files], image_size, photo_size=found.photo_size, shift=found.shift)
    images = Images(pixels, row, found.augmentation)
    *parts, division = divide(tree, images, seed, val_fraction, test_fraction, label_fraction)
    part: ImageSet = dict(zip(("train", "val", "test"), parts, strict=True))[split]
    reading = read_all([file.source for file in files], pixels, only=frozenset(part.rows), progress=progress)
    without_failures(tree, reading, skip=False)
    copies = copy_notes(reading, parts[0].rows, parts[2].rows)
    notes = tuple(map(printable, (*tree.notes, *size_notes(reading, image_size), *copies, *division)))
    return Part(
        part, tuple(tree.train), notes, fingerprint_of(tree, {name: reading.digests[row[name]] for name in row})
    )


def arranged(data: str | Path, classes: Sequence[str] | None, data_root: str | Path | None) -> tuple[Found, Tree]:
    """Find a data set, and check its layout."""
    found = find(data, data_root)
    tree = found.tree if classes is None else found.tree.only(classes)
    check(tree)
    return found, tree


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


def size_notes(reading: Reading, size: int) -> list[str]:
    """How many images have fewer pixels than the network will be shown, or that most have many more."""
    small = sum(shorter < size for shorter in reading.shorter.values())
    usual = round(median(reading.shorter.values())) if reading.shorter else size
    shrunk = (
        f"images are shrunk to {size}x{size}, and half of them have a shorter side of {usual} pixels or more; a model "
        "made for larger ones sees more of them (--model, --image-size)"
    )
    enlarged = f"{small} of {len(reading.shorter)} images are smaller than {size} pixels and were enlarged"
    return [enlarged] * bool(small) + [shrunk] * (usual >= SHRUNK * size)


def fingerprint_of(tree: Tree, digests: dict[str, str]) -> str:
    """SHA-256 over (path below the root, label, SHA-256 of the content) of every image."""
    lines = [
        f"{'/'.join(file.parts)}\t{label}\t{digests[file.source.name]}\n"
        for split in tree.splits.values()
        for label, name in enumerate(tree.train)
        for file in split[name]
    ]
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()
