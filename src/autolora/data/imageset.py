"""A split of a data set as torch sees it, one image or one batch at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from autolora.data.pixels import Pixels, mirrored, unit_range

Augmentation = Literal["none", "crop", "crop-flip"]


@dataclass(frozen=True, eq=False)
class ImageSet(Dataset[tuple[Tensor, int]]):
    """Some rows of decoded images with their labels.

    ``dataset[i]`` is ``(x, y)`` with x float32 (3, S, S) in [0, 1] and y an int. Random crops and flips, when
    ``augmenting``, are drawn from torch's global generator, so whoever restores that restores them. x is on the device
    on which ``pixels`` are, and y on the CPU.

    Args:
        pixels: The decoded images, shared among the splits of a data set.
        rows: Which rows of ``pixels`` this split consists of.
        labels: Class index of each image, (N,) int64.
        names: Readable path of each image.
        augmentation: What ``augmenting`` means: a random crop, or a random crop and a horizontal flip.
        augmenting: Whether images come augmented or as evaluation wants them.
        in_bytes: Whether x comes as uint8 in 0..255, to be moved first and then put into [0, 1] with `unit_range`.
    """

    pixels: Pixels
    rows: tuple[int, ...]
    labels: Tensor
    names: tuple[str, ...]
    augmentation: Augmentation = "crop-flip"
    augmenting: bool = False
    in_bytes: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")  # also what ends a plain for loop
        x, y = self.__getitems__([index])
        return x[0], int(y[0])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return a whole batch, as torch's loader asks for it: x (N, 3, S, S) and y int64 (N,)."""
        rows = [self.rows[index] for index in indices]
        if not self.augmenting or self.augmentation == "none":
            x = self.pixels.centre_crops(rows)
        else:
            x = self.pixels.random_crops(rows)
            x = mirrored(x) if self.augmentation == "crop-flip" else x
        return x if self.in_bytes else unit_range(x), self.labels[torch.as_tensor(indices, dtype=torch.long)]

    def with_augmentation(self, augmenting: bool) -> "ImageSet":
        """Return the same images, augmented or not; no pixel is copied."""
        return replace(self, augmenting=augmenting)

    def subset(self, indices: Sequence[int]) -> "ImageSet":
        """Return the images at ``indices``, in that order; no pixel is copied."""
        return replace(
            self,
            rows=tuple(self.rows[index] for index in indices),
            labels=self.labels[torch.as_tensor(indices, dtype=torch.long)],
            names=tuple(self.names[index] for index in indices),
        )
