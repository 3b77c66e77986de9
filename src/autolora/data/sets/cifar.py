"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from the archives "python version" and "binary version".

The python version is made of pickles, which are read without being run (`autolora.data.pickled`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autolora.data.layout import Tree
from autolora.data.official import Contents, Package
from autolora.data.pickled import bytes_array, read_data
from autolora.data.sets.arrays import ByClass, Pixels, by_class, check_distinct, check_names, checked_labels, joined
from autolora.errors import InputError
from autolora.pickles import Damaged, Refused

SIDE = 32
PIXELS = 3 * SIDE * SIDE
SITE = "https://www.cs.toronto.edu/~kriz/"

CIFAR10 = Package(
    "cifar-10-python.tar.gz",
    "cifar-10-batches-py",
    ("batches.meta", "data_batch_1", "test_batch"),
    SITE,
    "163 MiB",
    "c58f30108f718f92721af3b95e74349a",
    Package(
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-bin",
        ("batches.meta.txt", "data_batch_1.bin", "test_batch.bin"),
        SITE,
        "162 MiB",
    ),
)
CIFAR100 = Package(
    "cifar-100-python.tar.gz",
    "cifar-100-python",
    ("meta",),
    SITE,
    "161 MiB",
    "eb9058c3a382ffc7106e4002c42a8d85",
    Package(
        "cifar-100-binary.tar.gz",
        "cifar-100-binary",
        ("fine_label_names.txt", "coarse_label_names.txt"),
        SITE,
        "161 MiB",
    ),
)


@dataclass(frozen=True)
class Form:
    """How one of the two sets is laid out.

    Args:
        name: Of the set.
        classes: How many there are.
        batches: Files of the training images, without suffix.
        test: File of the test images.
        meta: Python version: file of the class names, and the key they have in it.
        key: Python version: key of the labels.
        names: Binary version: file of the class names.
        label_bytes: Binary version: bytes before the pixels; the last of them is the label.
    """

    name: str
    classes: int
    batches: tuple[str, ...]
    test: str
    meta: tuple[str, str]
    key: str
    names: str
    label_bytes: int


TEN = Form(
    "cifar10",
    10,
    tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test_batch",
    ("batches.meta", "label_names"),
    "labels",
    "batches.meta.txt",
    1,
)
HUNDRED = Form(
    "cifar100", 100, ("train",), "test", ("meta", "fine_label_names"), "fine_labels", "fine_label_names.txt", 2
)


def cifar10(contents: Contents) -> Tree:
    """Return CIFAR-10: five training batches and a test batch of 10,000 images, ten classes."""
    return read(contents, TEN)


def cifar100(contents: Contents) -> Tree:
    """Return CIFAR-100 with its hundred fine labels: 50,000 training and 10,000 test images."""
    return read(contents, HUNDRED)


def read(contents: Contents, form: Form) -> Tree:
    """Return the set in either version; which one it is, its files tell.

    Raises:
        InputError: a file is missing, damaged, or not what the authors published.
    """
    binary = form.names in contents.files or f"{form.test}.bin" in contents.files
    names = names_of(contents, form, binary)
    read_batch = read_binary if binary else read_python
    batches = {batch: read_batch(contents, form, batch) for batch in (*form.batches, form.test)}
    check_distinct(contents.where, [(batch, pixels) for batch, (pixels, _) in batches.items()])

    def split(name: str, files: Sequence[str]) -> ByClass:
        return joined([by_class(form.name, file, *batches[file], names, name) for file in files])

    return Tree(contents.where, split("train", form.batches), test=split("test", (form.test,)))


def names_of(contents: Contents, form: Form, binary: bool) -> list[str]:
    """Return the class names."""
    if binary:
        return check_names(f"{contents.where}: {form.names}", contents.lines(form.names), form.classes)
    file, key = form.meta
    names = dictionary(contents, file).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{contents.where}: {file} has no list {key}; download it again")
    return check_names(f"{contents.where}: {file}", names, form.classes)


def read_binary(contents: Contents, form: Form, batch: str) -> tuple[Pixels, list[int]]:
    """Return the images and labels of ``batch.bin``: rows of labels and pixels, one byte each."""
    file = f"{batch}.bin"
    data = np.frombuffer(contents.read(file), dtype=np.uint8)
    row = form.label_bytes + PIXELS
    if len(data) % row or not len(data):
        raise InputError(
            f"{contents.where}: {file} has {len(data)} bytes, and an image takes {row}; it is cut off, so download it "
            "again"
        )
    rows = data.reshape(-1, row)
    labels = rows[:, form.label_bytes - 1].tolist()
    where = f"{contents.where}: {file}"
    return colours_last(rows[:, form.label_bytes :]), checked_labels(labels, form.classes, where)


def read_python(contents: Contents, form: Form, batch: str) -> tuple[Pixels, list[int]]:
    """Return the images and labels of a pickled batch."""
    where = f"{contents.where}: {batch}"
    content = dictionary(contents, batch)
    labels = content.get(form.key)
    try:
        rows = bytes_array(content.get("data"))
    except ValueError as error:
        raise InputError(f"{where}: {error}; download it again") from error
    if rows.ndim != 2 or rows.shape[1] != PIXELS or not isinstance(labels, list) or len(labels) != len(rows):
        count = len(labels) if isinstance(labels, list) else "no"
        raise InputError(
            f"{where} has an array of shape {rows.shape} and {count} {form.key}, "
            f"and should have {PIXELS} bytes and a label for each image; download it again"
        )
    return colours_last(rows), checked_labels(labels, form.classes, where)


def dictionary(contents: Contents, file: str) -> dict[str, Any]:
    """Return the dictionary in a pickle.

    Raises:
        InputError: there is none, or the pickle asks for more than data.
    """
    try:
        content = read_data(contents.read(file))
    except Refused as refused:
        raise InputError(
            f"{contents.where}: {file} is refused, since unpickling it could run code ({refused}); "
            f"get the original from {SITE}cifar.html"
        ) from None
    except Damaged as error:
        raise InputError(f"{contents.where}: {file} cannot be read ({error}); download it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{contents.where}: {file} holds no dictionary; download it again")
    return content


def colours_last(rows: Pixels) -> Pixels:
    """(N, 3072), one colour after the other, to (N, 32, 32, 3)."""
    return np.ascontiguousarray(rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
