"""What a radius means for the images at hand: in grey levels, against their contrast, and between their classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autolora.threat import Norm

GREY_LEVELS = 255
OPERATIONS = 2**30  # subtractions that are spent on distances: 570 images at 32x32, 84 at 224x224

ROWS = 64  # images whose distances are taken at once


@dataclass(frozen=True)
class EpsView:
    """A radius beside the images.

    Args:
        grey_levels: How far a pixel moves, of 255: at most (Linf), or when all move alike (L2, eps / sqrt(d)).
        contrast: Median over the images of the standard deviation of an image's pixels, in grey levels.
        compared: Images between which distances were taken.
        nearest: Smallest distance between two of them of different classes, in pixel units; None if all are of one.
        inseparable: Images with another class within 2 eps.
    """

    grey_levels: float
    contrast: float
    compared: int
    nearest: float | None
    inseparable: int

    @property
    def share(self) -> float:
        """Return the radius as a share of the contrast; infinite where there is none."""
        return self.grey_levels / self.contrast if self.contrast else float("inf")


def view_eps(x: Tensor, y: Tensor, radius: float, norm: Norm) -> EpsView:
    r"""Look at images with the eyes of an adversary of the given radius.

    If :math:`\lVert x - x' \rVert \le 2 \epsilon` for two images of different classes, :math:`(x + x') / 2` lies within
    :math:`\epsilon` of both, and no classifier whatsoever is robust on both (Yang et al., 2020).

    Args:
        x: Images (N, C, H, W) in [0, 1], in random order.
        y: Their classes (N,).
        radius: In pixel units.
        norm: Of the threat model.
    """
    pixels = x[0].numel()
    count = min(len(x), max(2, int((OPERATIONS / pixels) ** 0.5)))
    nearest = _to_other_class(x[:count].flatten(1), y[:count], norm)
    known = nearest[nearest.isfinite()]
    moved = radius if norm == "Linf" else radius / pixels**0.5
    return EpsView(
        grey_levels=moved * GREY_LEVELS,
        contrast=float(x.flatten(1).std(dim=1, correction=0).median()) * GREY_LEVELS,
        compared=count,
        nearest=float(known.min()) if len(known) else None,
        inseparable=int((known <= 2 * radius).sum()),
    )


def grey_point(pixels: int, norm: Norm) -> float:
    """Return the radius at which uniform grey is within reach of every image with d ``pixels``: 1/2, or sqrt(d)/2.

    All images then share a point of S(x), so only a constant answer is robust.
    """
    return 0.5 if norm == "Linf" else pixels**0.5 / 2


def _to_other_class(x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """Distance of each image (N, d) to the nearest one of another class, (N,); infinite if there is none."""
    p = float("inf") if norm == "Linf" else 2.0
    rows = []
    for start in range(0, len(x), ROWS):
        # the matrix product that is faster loses the small distances, which are the ones that count
        distances = torch.cdist(x[start : start + ROWS], x, p=p, compute_mode="donot_use_mm_for_euclid_dist")
        same = y[start : start + ROWS, None] == y[None, :]
        rows.append(distances.masked_fill(same, float("inf")).amin(dim=1))
    return torch.cat(rows)
