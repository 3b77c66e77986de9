"""Data sets that have a name instead of a place. A new one is a function and a line in `NAMED_SETS`."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autolora.data.imageset import Augmentation
from autolora.data.layout import Tree
from autolora.data.sources import BytesSource, File

PLANNED = ("cifar10", "cifar100", "stl10", "dtd", "dogs", "cub", "caltech256")
PLANNED_PREFIXES = ("hf:", "wds:")


@dataclass(frozen=True)
class NamedSet:
    """A data set known by name: where its images come from and how far they may be altered."""

    summary: str
    load: Callable[[], Tree]
    augmentation: Augmentation = "crop-flip"


def digits() -> Tree:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8 pixels with 17 grey levels, in ten classes without a split."""
    from sklearn.datasets import load_digits  # takes a second to import

    bunch = load_digits()
    classes: dict[str, list[File]] = {str(digit): [] for digit in range(10)}
    for index, (values, digit) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        name = f"{index:04d}.pgm"
        source = BytesSource(f"digits:{digit}/{name}", portable_greymap(values * 255 / 16))
        classes[str(digit)].append(File((str(digit), name), source))
    return Tree("digits", classes)


def portable_greymap(values: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> bytes:
    """Grey values (H, W) in 0..255 as a PGM file, so that they take the path that files take."""
    height, width = values.shape
    return f"P5 {width} {height} 255\n".encode() + np.rint(values).astype(np.uint8).tobytes()


def planned(name: str) -> bool:
    """Whether ``name`` is a data set that is announced but not built yet."""
    return name in PLANNED or name.startswith(PLANNED_PREFIXES)


NAMED_SETS: dict[str, NamedSet] = {
    "digits": NamedSet(
        "1,797 handwritten digits of 8 x 8 pixels, embedded",
        digits,
        "crop",  # a mirrored digit is no digit
    ),
}
