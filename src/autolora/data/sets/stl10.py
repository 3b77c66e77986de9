"""STL-10 (Coates, Ng and Lee, 2011) from its binary archive: labelled images only, 96 x 96 pixels."""

import numpy as np

from autolora.data.layout import Tree
from autolora.data.official import Contents, Package
from autolora.data.sets.arrays import ByClass, Pixels, by_class, check_distinct, check_names, checked_labels
from autolora.errors import InputError

SIDE, CLASSES = 96, 10

STL10 = Package(
    "stl10_binary.tar.gz",
    "stl10_binary",
    ("train_X.bin", "test_X.bin", "class_names.txt"),
    "http://ai.stanford.edu/~acoates/stl10/",
    "2.5 GiB",
    "91f7769df0f17e558f3565bffb0c7dfb",
)


def stl10(contents: Contents) -> Tree:
    """Return the 5,000 training and 8,000 test images; the 100,000 unlabelled ones are of no use here.

    Raises:
        InputError: a file is missing, damaged, or not what the authors published.
    """
    names = check_names(f"{contents.where}: class_names.txt", contents.lines("class_names.txt"), CLASSES)
    pixels = {split: images(contents, f"{split}_X.bin") for split in ("train", "test")}
    check_distinct(contents.where, [(f"{split}_X.bin", array) for split, array in pixels.items()])

    def split(name: str) -> ByClass:
        labels = labels_of(contents, f"{name}_y.bin", len(pixels[name]))
        return by_class("stl10", name, pixels[name], labels, names, name)

    return Tree(contents.where, split("train"), test=split("test"))


def images(contents: Contents, file: str) -> Pixels:
    """Return (N, 96, 96, 3): the file has one colour after the other, each column by column."""
    data = np.frombuffer(contents.read(file), dtype=np.uint8)
    if len(data) % (3 * SIDE * SIDE) or not len(data):
        raise InputError(
            f"{contents.where}: {file} has {len(data)} bytes, and an image takes {3 * SIDE * SIDE}; "
            "it is cut off, so download it again"
        )
    return data.reshape(-1, 3, SIDE, SIDE).transpose(0, 3, 2, 1)


def labels_of(contents: Contents, file: str, count: int) -> list[int]:
    """Return the labels from 0; the file has them from 1."""
    labels = list(contents.read(file))
    if len(labels) != count:
        raise InputError(
            f"{contents.where}: {file} has {len(labels)} labels for {count} images; it is damaged, so download it again"
        )
    return checked_labels(labels, CLASSES, f"{contents.where}: {file}", first=1)
