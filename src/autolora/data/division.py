"""Make the splits that a data set does not come with: test images first, then validation images, then fewer labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autolora.data.imageset import Augmentation, ImageSet
from autolora.data.layout import Classes, Tree
from autolora.data.pixels import Pixels
from autolora.data.stratify import allocate, draw, share, standard_error, validation_size
from autolora.errors import InputError


@dataclass(frozen=True)
class Images:
    """Decoded images, to be cut into image sets."""

    pixels: Pixels
    row: dict[str, int]  # by source name
    augmentation: Augmentation

    def set_of(self, classes: Classes, order: Sequence[str]) -> ImageSet:
        """Return the image set of one split; labels count the names in ``order``."""
        files = [(file, label) for label, name in enumerate(order) for file in classes[name]]
        names = tuple(file.source.name for file, _ in files)
        labels = torch.tensor([label for _, label in files], dtype=torch.long)
        return ImageSet(self.pixels, tuple(self.row[name] for name in names), labels, names, self.augmentation)


def divide(
    tree: Tree,
    images: Images,
    seed: int,
    val_fraction: float | None,
    test_fraction: float,
    label_fraction: float,
) -> tuple[ImageSet, ImageSet, ImageSet, list[str]]:
    """Train, val and test: as the tree has them, and drawn from train in the order test, val where it has not."""
    names = tuple(tree.train)
    generator = torch.Generator().manual_seed(seed)
    notes: list[str] = []
    train = images.set_of(tree.train, names)
    if tree.test is None:
        test, train = hold_out(train, names, test_fraction, generator)
        notes.append(f"there is no test split: {len(test)} of {len(test) + len(train)} images were held out")
    else:
        test = images.set_of(tree.test, names)
    if tree.val is None:
        available = len(set(train.rows))
        val, train = take_validation(train, names, val_fraction, generator)
        source = f"{len(val)} of {available} training images ({100 * len(val) / available:.3g} %)"
    else:
        val = images.set_of(tree.val, names)
        source = f"the {len(val)} images that the data set says" + (
            f", not val_fraction={val_fraction}" if val_fraction is not None else ""
        )
    notes.append(f"validation: {source}, standard error up to {100 * standard_error(len(val)):.1f} points")
    if label_fraction < 1:
        labelled = keep_labels(train, label_fraction, generator)
        notes.append(f"labels: {len(labelled)} of {len(train)} training images are used (label_fraction)")
        train = labelled
    return train, val, test, notes


def class_sizes(images: ImageSet) -> list[int]:
    """How many images each class has."""
    sizes: list[int] = torch.bincount(images.labels).tolist()
    return sizes


def hold_out(
    images: ImageSet, names: Sequence[str], fraction: float, generator: torch.Generator
) -> tuple[ImageSet, ImageSet]:
    """Test images, at least one of each class, and the others, at least two of each class."""
    sizes = class_sizes(images)
    counts = [max(1, count) for count in allocate(sizes, share(len(images), fraction))]
    for name, size, count in zip(names, sizes, counts, strict=True):
        if size - count < 2:
            raise InputError(
                f"test_fraction={fraction} leaves {size - count} of the {size} images of class {name!r} to train and "
                "validate on; give a smaller one"
            )
    return parted(images, draw(images.labels, counts, generator))


def take_validation(
    images: ImageSet, names: Sequence[str], fraction: float | None, generator: torch.Generator
) -> tuple[ImageSet, ImageSet]:
    """Return validation images and the others. Without a ``fraction`` each class keeps at least one on both sides.

    Where an image stands in train twice, all of it goes to one side.
    """
    once = distinct(images)
    val, _ = parted(once, draw(once.labels, validation_counts(once, names, fraction), generator))
    taken = set(val.rows)
    return val, images.subset([index for index, row in enumerate(images.rows) if row not in taken])


def distinct(images: ImageSet) -> ImageSet:
    """Return every image once, where it stands first."""
    first: dict[int, int] = {}
    for index, row in enumerate(images.rows):
        first.setdefault(row, index)
    return images.subset(list(first.values()))


def validation_counts(images: ImageSet, names: Sequence[str], fraction: float | None) -> list[int]:
    """Return how many images of each class to validate on."""
    sizes = class_sizes(images)
    if fraction is None:
        wanted = allocate(sizes, validation_size(len(images)))
        return [min(max(1, count), size - 1) for size, count in zip(sizes, wanted, strict=True)]
    counts = allocate(sizes, share(len(images), fraction))
    for name, size, count in zip(names, sizes, counts, strict=True):
        if count in (0, size):
            without = "validation" if count == 0 else "training"
            raise InputError(
                f"val_fraction={fraction} leaves class {name!r} ({size} images) without a {without} image; "
                f"give a {'larger' if count == 0 else 'smaller'} one, or none to have it chosen"
            )
    return counts


def keep_labels(images: ImageSet, fraction: float, generator: torch.Generator) -> ImageSet:
    """``fraction`` of the images, at least one of each class."""
    counts = [max(1, count) for count in allocate(class_sizes(images), share(len(images), fraction))]
    return parted(images, draw(images.labels, counts, generator))[0]


def parted(images: ImageSet, parts: tuple[Tensor, Tensor]) -> tuple[ImageSet, ImageSet]:
    """Return the two image sets that `draw` makes of one."""
    return images.subset(parts[0].tolist()), images.subset(parts[1].tolist())
