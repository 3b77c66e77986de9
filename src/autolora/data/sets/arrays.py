"""Images that a data set keeps as rows of an array, with a list of labels beside them."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autolora.data.sources import File, PixelSource
from autolora.errors import InputError

Pixels = NDArray[np.uint8]  # (N, H, W) grey or (N, H, W, 3)
ByClass = dict[str, list[File]]


def checked_labels(labels: Sequence[int], classes: int, where: str, *, first: int = 0) -> list[int]:
    """Return labels that count from 0, after a look at every one of them.

    Args:
        labels: As the file has them.
        classes: How many classes there are.
        where: The file, for the message.
        first: The label of the first class.

    Raises:
        InputError: one is outside of ``first`` .. ``first + classes - 1``, as all are that count from elsewhere.
    """
    last = first + classes - 1
    for index, label in enumerate(labels):
        if not isinstance(label, int) or not first <= label <= last:
            # what is no number is not shown: a list of lists of ... in a few bytes is gigabytes in writing
            shown = f"{label}" if isinstance(label, int) else f"of type {type(label).__name__}"
            raise InputError(
                f"{where} gives image {index} a label {shown}, not one of {first} to {last}; download it again"
            )
    return [label - first for label in labels]


def by_class(name: str, batch: str, pixels: Pixels, labels: Sequence[int], names: Sequence[str], split: str) -> ByClass:
    """Return the images of one file by class; each is known by the set, the file and its place in it.

    Args:
        name: Of the data set.
        batch: Of the file.
        pixels: Its images.
        labels: Their labels, from 0.
        names: Of the classes.
        split: They belong to.
    """
    classes: ByClass = {c: [] for c in names}
    for index, label in enumerate(labels):
        file = f"{batch}-{index:05d}"
        source = PixelSource(f"{name}:{split}/{names[label]}/{file}", pixels[index])
        classes[names[label]].append(File((split, names[label], file), source))
    return classes


def joined(parts: Sequence[ByClass]) -> ByClass:
    """Return the images of several files of one split, in the order of the files."""
    return {c: [file for part in parts for file in part[c]] for c in parts[0]}


def check_distinct(where: str, batches: Sequence[tuple[str, Pixels]]) -> None:
    """Refuse a file whose images are those of another one.

    Raises:
        InputError: two of ``batches`` hold the same images.
    """
    seen: dict[bytes, str] = {}
    for batch, pixels in batches:
        content = hashlib.sha256(pixels.tobytes()).digest()
        if content in seen:
            raise InputError(f"{where}: {batch} holds the same images as {seen[content]}; download it again")
        seen[content] = batch


def check_names(where: str, names: Sequence[str], classes: int) -> list[str]:
    """Return the class names of a file that lists them.

    Raises:
        InputError: they are not as many as there are classes, or two are alike.
    """
    if len(names) != classes or len(set(names)) != classes:
        raise InputError(f"{where} names {len(set(names))} classes, and there are {classes}; download it again")
    return list(names)
