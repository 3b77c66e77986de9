"""Defocus, glass, motion and zoom blur (Hendrycks & Dietterich, 2019).

Edges follow the released scripts: defocus mirrors about the outermost pixels, glass and motion blur repeat them.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter1d

Image = NDArray[np.float32]  # (3, H, W) in [0, 1]


def defocus_blur(image: Image, rng: Generator, radius: float, softness: float) -> Image:
    """Convolve with the disc that an unfocused lens makes of a point.

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Not used; the lens leaves nothing to chance.
        radius: Radius of the disc in pixels.
        softness: Standard deviation in pixels of the Gaussian that softens the disc's edge.
    """
    kernel = disc(radius, softness)
    reach = len(kernel) // 2
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    blurred = F.conv2d(torch.from_numpy(padded)[:, None], torch.from_numpy(kernel)[None, None])
    return blurred[:, 0].numpy()


@lru_cache(maxsize=16)
def disc(radius: float, softness: float) -> NDArray[np.float32]:
    """Return the kernel of :func:`defocus_blur`, (2 r + 1, 2 r + 1), cut where it is zero.

    The disc is sampled on a grid of 17x17 (above a radius of 8, of the radius itself), scaled to sum 1, and then
    softened over 3x3 (5x5) pixels with mirrored edges. At radii 8 and 10 that leaves a sum just above 1, as published.
    """
    reach, taps = (8, 3) if radius <= 8 else (ceil(radius), 5)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (x**2 + y**2 <= radius**2).astype(np.float64)
    kernel /= kernel.sum()
    bell = _bell(np.arange(taps) - taps // 2, softness)
    for axis in (0, 1):
        kernel = correlate1d(kernel, bell, axis=axis, mode="mirror")
    used = int(np.abs(np.argwhere(kernel > 0) - reach).max())
    inside = slice(reach - used, reach + used + 1)
    return kernel[inside, inside].astype(np.float32)


def glass_blur(image: Image, rng: Generator, sigma: float, reach: int, rounds: int) -> Image:
    """Look through frosted glass: smooth, displace pixels locally, smooth again.

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Where the displacements come from.
        sigma: Standard deviation in pixels of both smoothings.
        reach: Displacements are drawn from -reach to reach - 1 along each axis.
        rounds: How often every pixel is displaced.
    """
    image = _smooth(image, sigma)
    height, width = image.shape[1:]
    for _ in range(rounds):
        moves = rng.integers(-reach, reach, size=(2, height - 2 * reach, width - 2 * reach))
        image = image.reshape(3, -1)[:, displaced(moves, height, width, reach)].reshape(image.shape)
    return _smooth(image, sigma)


def displaced(moves: NDArray[np.int64], height: int, width: int, reach: int) -> NDArray[np.int64]:
    """Return from which pixel (flat index) every pixel (H * W,) takes its value in one round of :func:`glass_blur`.

    The released scripts go through rows and columns reach + 1 .. size - reach, from last to first, and let each pixel
    take the present value of its neighbour at the drawn displacement. They are written as an exchange, but with numpy's
    views that is a copy, and a copy it is here. A neighbour that had its turn already passes on what it took: these
    chains are followed for all pixels at once, by doubling.

    Args:
        moves: Displacements (2, H - 2 reach, W - 2 reach) of the visited pixels, rows then columns.
        height: Rows of the image.
        width: Columns of the image.
        reach: Greatest displacement.
    """
    count = height * width
    place = np.arange(count).reshape(height, width)
    turn = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    source = place[turn] + moves[0] * width + moves[1]
    follow = np.tile(place.ravel(), 2) + count  # the second half: values before the round, where all chains end
    follow[place[turn]] = np.where(source > place[turn], source, source + count)  # greater: its turn is over
    while (follow[:count] < count).any():
        follow = follow[follow]
    return follow[:count] - count


def motion_blur(image: Image, rng: Generator, radius: float, sigma: float) -> Image:
    """Shake the camera in one direction, up to 45 degrees from the horizontal.

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Where the direction comes from.
        radius: Length of the trail; see :func:`trail`.
        sigma: How slowly the trail fades, in pixels.
    """
    return trail(image, radius, sigma, rng.uniform(-45, 45))


def trail(image: Image, radius: float, sigma: float, angle: float) -> Image:
    """Let every pixel fade along one direction: sum_i k_i x(p + round(i u)), k_i ~ exp(-i^2 / (2 sigma^2)).

    This is the motion blur of ImageMagick, which the released scripts call: a one-sided bell of 2 radius + 1 taps along
    the unit vector u, at whole pixels, scaled to sum 1, with the outermost pixels repeated.

    Args:
        image: Layers (C, H, W).
        radius: Gives the number of taps.
        sigma: Standard deviation of the bell in pixels.
        angle: Direction of u in degrees, from the columns' axis towards greater rows.
    """
    steps = np.arange(2 * ceil(radius) + 1)
    weights = _bell(steps, sigma).astype(np.float32)
    rows, columns = (np.ceil(steps * part(np.deg2rad(angle)) - 0.5).astype(int) for part in (np.sin, np.cos))
    height, width = image.shape[1:]
    low, high = (min(0, rows.min()), min(0, columns.min())), (max(0, rows.max()), max(0, columns.max()))
    padded = np.pad(image, ((0, 0), (-low[0], high[0]), (-low[1], high[1])), mode="edge")
    blurred = np.zeros_like(image)
    for weight, row, column in zip(weights, rows - low[0], columns - low[1], strict=True):
        blurred += weight * padded[:, row : row + height, column : column + width]
    return blurred


def zoom_blur(image: Image, rng: Generator, end: float, step: float) -> Image:
    """Move towards the scene: the mean of the image and its magnifications by 1, 1 + step, ... below ``end``.

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Not used.
        end: Upper end of the magnifications, for :func:`numpy.arange`.
        step: Between two magnifications.
    """
    factors = np.arange(1, end, step)  # of the published length, which rounding makes one longer here and there
    total = image.copy()
    for factor in factors:
        total += magnified(image, float(factor))
    return total / np.float32(len(factors) + 1)


def magnified(image: Image, factor: float) -> Image:
    """Enlarge the middle of layers (C, H, W) bilinearly, corner pixels on corner pixels, to their old size.

    Args:
        image: Layers (C, H, W).
        factor: Magnification, at least 1.
    """
    size = image.shape[1:]
    part = [ceil(side / factor) for side in size]
    top, left = ((side - inner) // 2 for side, inner in zip(size, part, strict=True))
    middle = torch.from_numpy(image[None, :, top : top + part[0], left : left + part[1]])
    large = [round(inner * factor) for inner in part]
    enlarged = F.interpolate(middle, size=large, mode="bilinear", align_corners=True)[0].numpy()
    top, left = ((outer - side) // 2 for side, outer in zip(size, large, strict=True))
    return enlarged[:, top : top + size[0], left : left + size[1]]


def _smooth(image: Image, sigma: float) -> Image:
    for axis in (1, 2):
        image = gaussian_filter1d(image, sigma, axis=axis, mode="nearest")
    return image


def _bell(distance: NDArray[np.int64], sigma: float) -> NDArray[np.float64]:
    """Return a Gaussian at whole distances, scaled to sum 1."""
    bell = np.exp(-(distance**2) / (2 * sigma**2))
    return bell / bell.sum()
