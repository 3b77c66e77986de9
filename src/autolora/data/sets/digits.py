"""Scikit-learn's handwritten digits, which come with it."""

import numpy as np

from autolora.data.layout import Tree
from autolora.data.sources import File, PixelSource


def digits() -> Tree:
    """Return the 1,797 digits, 8 x 8 pixels with 17 grey levels, in ten classes without a split."""
    from sklearn.datasets import load_digits  # takes a second to import

    bunch = load_digits()
    classes: dict[str, list[File]] = {str(digit): [] for digit in range(10)}
    for index, (values, digit) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        name = f"{index:04d}.pgm"
        grey = np.rint(values * 255 / 16).astype(np.uint8)
        classes[str(digit)].append(File((str(digit), name), PixelSource(f"digits:{digit}/{name}", grey)))
    return Tree("digits", classes)
