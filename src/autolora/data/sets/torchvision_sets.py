"""Data sets that torchvision reads, as ``torchvision:NAME``.

Those are here whose images torchvision reads from arrays, or whose files and labels it lists; of the others, many
unpack to class folders, which can be given as a folder. What a set of torchvision's is made of is private to it, so a
test reads a tiny copy of each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autolora.data.imageset import Augmentation
from autolora.data.layout import Split, Tree, tree_from
from autolora.data.official import ROOT_VARIABLE
from autolora.data.sources import File, FileSource, PixelSource, Source
from autolora.errors import InputError

PREFIX = "torchvision:"
Options = Mapping[str, Any]
TRAIN_FLAG: Mapping[Split, Options] = {"train": {"train": True}, "test": {"train": False}}
SPLIT_NAME: Mapping[Split, Options] = {"train": {"split": "train"}, "test": {"split": "test"}}
TRAINVAL: Mapping[Split, Options] = {"train": {"split": "trainval"}, "test": {"split": "test"}}


@dataclass(frozen=True)
class TorchvisionSet:
    """How to read one of them.

    Args:
        classes: How many.
        images: How many to train and to validate on, and how many to test on.
        splits: Options of torchvision's class by split.
        items: Gives the images, arrays or paths, and the labels of torchvision's object.
        terms: Of its use, as far as its authors state them.
        augmentation: That is right for it.
        checked: Whether torchvision's download has a checksum.
    """

    classes: int
    images: tuple[int, int]
    splits: Mapping[Split, Options]
    items: Callable[[Any], tuple[Any, Any]]
    terms: str
    augmentation: Augmentation = "crop-flip"
    checked: bool = True


def listed_files(data: Any) -> tuple[Any, Any]:
    """Return the files and labels that most of torchvision's sets of photos hold."""
    return data._image_files, data._labels


def pairs(samples: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Return the files and the labels of pairs."""
    return [path for path, _ in samples], [label for _, label in samples]


NO_TERMS = "its authors state none"
TORCHVISION_SETS: dict[str, TorchvisionSet] = {
    "MNIST": TorchvisionSet(
        10, (60_000, 10_000), TRAIN_FLAG, lambda d: (d.data, d.targets), "CC BY-SA 3.0", augmentation="crop"
    ),
    "FashionMNIST": TorchvisionSet(10, (60_000, 10_000), TRAIN_FLAG, lambda d: (d.data, d.targets), "MIT"),
    "KMNIST": TorchvisionSet(
        10, (60_000, 10_000), TRAIN_FLAG, lambda d: (d.data, d.targets), "CC BY-SA 4.0", augmentation="crop"
    ),
    "USPS": TorchvisionSet(10, (7291, 2007), TRAIN_FLAG, lambda d: (d.data, d.targets), NO_TERMS, augmentation="crop"),
    "SVHN": TorchvisionSet(
        10,
        (73_257, 26_032),
        SPLIT_NAME,
        lambda d: (np.transpose(d.data, (0, 2, 3, 1)), d.labels),  # it has the colours first
        "non-commercial use",
        augmentation="crop",
    ),
    "EuroSAT": TorchvisionSet(10, (27_000, 0), {"train": {}}, lambda d: pairs(d.samples), "MIT"),
    "Flowers102": TorchvisionSet(102, (2040, 6149), {**SPLIT_NAME, "val": {"split": "val"}}, listed_files, NO_TERMS),
    "Food101": TorchvisionSet(101, (75_750, 25_250), SPLIT_NAME, listed_files, "photos from Foodspotting; research"),
    "FGVCAircraft": TorchvisionSet(100, (6667, 3333), TRAINVAL, listed_files, "non-commercial research", checked=False),
    "OxfordIIITPet": TorchvisionSet(37, (3680, 3669), TRAINVAL, lambda d: (d._images, d._labels), "CC BY-SA 4.0"),
    "GTSRB": TorchvisionSet(
        43, (26_640, 12_630), SPLIT_NAME, lambda d: pairs(d._samples), "see its page", augmentation="crop"
    ),
}


def torchvision_tree(name: str, root: Path) -> Tree:
    """Return the images of ``torchvision:NAME`` that lie below ``root`` as torchvision puts them there.

    Raises:
        InputError: there is no such set here, it is not there, or torchvision cannot read it.
    """
    known = known_set(name)
    parts = {split: open_set(name, known, options, root) for split, options in known.splits.items()}
    items = {split: known.items(data) for split, data in parts.items()}
    labels = {split: [int(label) for label in found[1]] for split, found in items.items()}
    values = sorted({label for found in labels.values() for label in found})
    names = names_of(parts["train"], values)
    splits: dict[Split, dict[str, list[File]]] = {}
    for split, (images, _) in items.items():
        splits[split] = {c: [] for c in names.values()}
        for index, (image, label) in enumerate(zip(images, labels[split], strict=True)):
            file = Path(image).name if isinstance(image, str | Path) else f"{index:05d}"
            where = f"{PREFIX}{name}:{split}/{names[label]}/{index:05d}"
            splits[split][names[label]].append(File((split, names[label], file), source(where, image)))
    return tree_from(f"{PREFIX}{name}", splits)


def known_set(name: str) -> TorchvisionSet:
    """Return how to read ``torchvision:NAME``.

    Raises:
        InputError: it is not one of those that are read here.
    """
    if name in TORCHVISION_SETS:
        return TORCHVISION_SETS[name]
    raise InputError(
        f"{PREFIX}{name} is not one of torchvision's data sets that are read here ({', '.join(TORCHVISION_SETS)}); "
        "give its images as class folders, or in a .csv"
    )


def open_set(name: str, known: TorchvisionSet, options: Options, root: Path, *, download: bool = False) -> Any:
    """Return torchvision's object.

    Raises:
        InputError: the files are not there, or torchvision cannot read them.
    """
    from torchvision import datasets

    try:
        return getattr(datasets, name)(str(root), **options, download=download)
    except Exception as error:  # RuntimeError, FileNotFoundError, and of damaged files anything
        how = f"fetch it with `autolora datasets --download {PREFIX}{name}`" if known.checked else "download it by hand"
        raise InputError(
            f"torchvision cannot read {name} in {root} ({' '.join(str(error).split())}); {how}, "
            f"or set {ROOT_VARIABLE} to the folder that you give torchvision as root. Terms: {known.terms}"
        ) from error


def names_of(data: Any, labels: Sequence[int]) -> dict[int, str]:
    """Return the name of each label: torchvision's, or the label itself where it has no names."""
    names = list(getattr(data, "classes", ()))
    if len(names) == len(set(names)) and labels and labels[0] == 0 and labels[-1] < len(names):
        return dict(enumerate(names))
    return {label: str(label) for label in labels}


def source(where: str, image: Any) -> Source:
    """Return one image: a path, or pixels (H, W) or (H, W, 3)."""
    if isinstance(image, str | Path):
        return FileSource(where, Path(image).absolute())
    pixels = image.numpy() if isinstance(image, torch.Tensor) else image
    return PixelSource(where, np.asarray(pixels, dtype=np.uint8))
