"""Stanford Dogs (Khosla et al., 2011): 12,000 training and 8,580 test images of 120 breeds.

``images.tar`` has a folder for each breed; ``lists.tar`` has ``train_list.mat`` and ``test_list.mat``, in Matlab's
format, each with ``file_list`` (paths) and ``labels`` (from 1). The boxes around the dogs are not used, as in papers.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np

from autolora.data.layout import Split, Tree
from autolora.data.official import Contents, Package
from autolora.data.sets.lists import Entry, tree_of
from autolora.errors import InputError

SITE = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
IMAGES = Package("images.tar", "Images", (), SITE, "757 MiB")
LISTS = Package("lists.tar", "", ("train_list.mat", "test_list.mat"), SITE, "0.5 MiB")
FILES: tuple[tuple[str, Split], ...] = (("train_list.mat", "train"), ("test_list.mat", "test"))


def dogs(images: Contents, lists: Contents) -> Tree:
    """Return the official split; classes in the order of their labels, named by their folders.

    Raises:
        InputError: a list or an image is missing, a label does not belong to its folder, or an image is listed twice.
    """
    listed = {file: read(lists, file) for file, _ in FILES}
    names = names_by_label([(file, *pair) for file, pairs in listed.items() for pair in pairs], lists.where)
    entries = [
        Entry(path, names[label - 1], split, f"{file}, entry {number}")
        for file, split in FILES
        for number, (path, label) in enumerate(listed[file], 1)
    ]
    return tree_of(images, "", entries, names)


def read(lists: Contents, file: str) -> list[tuple[str, int]]:
    """Return the paths and labels of one list.

    Raises:
        InputError: it is missing, or not what it should be.
    """
    data = lists.read(file)
    try:
        table = load_matlab(data)
        paths = [str(cell.item()) for cell in table["file_list"].ravel()]
        labels = [int(value) for value in table["labels"].ravel()]
    except Exception as error:  # of a damaged file the reader raises anything
        raise InputError(f"{lists.where}: {file} cannot be read ({error!r:.80}); download it again") from None
    if len(paths) != len(labels):
        raise InputError(f"{lists.where}: {file} has {len(labels)} labels for {len(paths)} images; download it again")
    return list(zip(paths, labels, strict=True))


def load_matlab(data: bytes) -> dict[str, Any]:
    """Return the two variables of a list; reading Matlab's format runs nothing that is in it."""
    from scipy.io import loadmat

    stream: Any = BytesIO(data)  # the stubs know paths only
    table: dict[str, Any] = loadmat(stream, variable_names=["file_list", "labels"])
    return {name: np.asarray(table[name]) for name in ("file_list", "labels")}


def names_by_label(listed: Sequence[tuple[str, str, int]], where: str) -> list[str]:
    """Return the folder that each label stands for, from label 1 on.

    Args:
        listed: List, path and label of every image.
        where: The lists, for the message.

    Raises:
        InputError: labels do not run from 1 without a gap, or two labels share a folder, or two folders a label.
    """
    folder_of: dict[int, str] = {}
    label_of: dict[str, int] = {}
    for file, path, label in listed:
        folder = path.split("/", 1)[0]
        if label_of.setdefault(folder, label) != label:
            other = f"other images of {folder} the label {label_of[folder]}"
        elif folder_of.setdefault(label, folder) != folder:
            other = f"images of {folder_of[label]} the same"
        else:
            continue
        raise InputError(f"{where}: {file} gives {path} the label {label}, and {other}; download it again")
    if sorted(folder_of) != list(range(1, len(folder_of) + 1)):
        raise InputError(
            f"{where}: the labels run from {min(folder_of, default=0)} to {max(folder_of, default=0)} "
            f"for {len(folder_of)} classes, and should count from 1; download it again"
        )
    return [folder_of[label] for label in sorted(folder_of)]
