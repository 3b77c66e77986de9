"""Several targets at once, when so few images still stand that one target would leave most of a batch empty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Round(NamedTuple):
    """Images that have not fallen, each once for every target that is tried now, the first target's rows first."""

    image: Tensor  # (n,) where they are in the batch
    target: Tensor  # (n,) the class aimed at
    columns: range  # which of the targets, in their order

    def parts(self) -> Iterator[slice]:
        """Yield the rows of one target after the other."""
        images = len(self.image) // len(self.columns)
        for part in range(len(self.columns)):
            yield slice(part * images, (part + 1) * images)


def rounds(targets: Tensor, fallen: Tensor, most: int) -> Iterator[Round]:
    """Yield what to try next, until all targets were tried or all images have fallen.

    Args:
        targets: The classes to aim at (N, T), the first first.
        fallen: Which images (N,) have fallen; read anew before each round.
        most: Rows that a round may have; it tries one target at least.
    """
    column = 0
    while column < targets.shape[1]:
        left = (~fallen).nonzero().squeeze(1)
        if not len(left):
            return
        columns = range(column, min(targets.shape[1], column + max(1, most // len(left))))
        target = targets[left][:, columns.start : columns.stop]
        yield Round(left.repeat(len(columns)), target.T.flatten(), columns)
        column = columns.stop


class Siblings:
    """Which rows of a round are still of use: one by one, the first target that fells an image would end its search.

    So when a row falls, the rows of the same image with later targets are given up, and those with earlier ones go on:
    what is found for an image does not hang on how many targets are tried at once.

    Args:
        image: Which image each row is of (n,), any numbers from 0.
    """

    def __init__(self, image: Tensor) -> None:
        self._image = image
        self._first = torch.full((int(image.max()) + 1 if len(image) else 0,), len(image), device=image.device)

    def of_use(self, rows: Tensor, fell: Tensor) -> Tensor:
        """Say which rows (m,) go on, when some of them (m,) have just fallen."""
        down = rows[fell]
        self._first.scatter_reduce_(0, self._image[down], down, "amin")
        return rows < self._first[self._image[rows]]
