"""Contrast, elastic transformation, pixelation and JPEG compression (Hendrycks & Dietterich, 2019)."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image as Picture
from scipy.ndimage import gaussian_filter1d

Image = NDArray[np.float32]  # (3, H, W) in [0, 1]


def contrast(image: Image, rng: Generator, share: float) -> Image:
    """Draw every channel to its mean m over the image, (x - m) * share + m.

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Not used.
        share: What is left of the contrast.
    """
    mean = image.mean(axis=(1, 2), keepdims=True)
    return (image - mean) * np.float32(share) + mean


def elastic_transform(image: Image, rng: Generator, strength: float, smoothness: float, shear: float) -> Image:
    """Stretch the image by a random affine map, then locally by a smooth random field.

    The published constants are multiples of the image's side, and so are these, with the shorter side as the unit.

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Where both distortions come from.
        strength: Factor of the smoothed field, whose values are drawn from U(-1, 1).
        smoothness: Standard deviation of the Gaussian that smooths the field.
        shear: How far each of three points is moved along either axis, at most.
    """
    size = image.shape[1:]
    side = min(size)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    places = np.stack([y.ravel(), x.ravel(), np.ones(y.size)])
    rows, columns, _ = inverse_affine(size, shear * side, rng) @ places
    image = sampled(image, rows.reshape(size), columns.reshape(size), mirror_pixels=True)
    field = rng.uniform(-1, 1, size=(2, *size))
    along, across = (smoothing(length, smoothness * side) for length in size)
    dx, dy = strength * side * (along @ field @ across.T)
    return sampled(image, y + dy, x + dx, mirror_pixels=False)


def inverse_affine(size: tuple[int, ...], amount: float, rng: Generator) -> NDArray[np.float64]:
    """Return the affine map (3, 3) of (row, column, 1) that brings three moved points back to where they were.

    Args:
        size: Height and width; the points are a third of the shorter side from the middle.
        amount: Points move by U(-amount, amount) along each axis.
        rng: Where the moves come from.
    """
    middle, arm = np.array(size) // 2, min(size) // 3
    corners = middle + arm * np.array([[1, 1], [-1, 1], [-1, -1]])
    moved = corners + rng.uniform(-amount, amount, size=(3, 2))
    homogeneous = [np.vstack([points.T, np.ones(3)]) for points in (corners, moved)]
    return homogeneous[0] @ np.linalg.inv(homogeneous[1])


def sampled(image: Image, rows: NDArray[np.float64], columns: NDArray[np.float64], *, mirror_pixels: bool) -> Image:
    """Read an image (C, H, W) bilinearly at any rows and columns (H, W), mirrored beyond its edges.

    Args:
        image: Layers (C, H, W).
        rows: Where to read, in pixels from the centre of the first.
        columns: The same along the other axis.
        mirror_pixels: Mirror about the centres of the outermost pixels, or else about their outer edges.
    """
    height, width = image.shape[1:]
    shift = 0 if mirror_pixels else 1
    grid = np.stack(
        [(2 * columns + shift) / (width - 1 + shift) - 1, (2 * rows + shift) / (height - 1 + shift) - 1], axis=-1
    )
    x, where = torch.from_numpy(image).double()[None], torch.from_numpy(grid)[None]
    read = F.grid_sample(x, where, "bilinear", padding_mode="reflection", align_corners=mirror_pixels)
    return read[0].float().numpy()


@lru_cache(maxsize=8)
def smoothing(length: int, sigma: float) -> NDArray[np.float64]:
    """Return Gaussian smoothing along one axis as a matrix (length, length), cut at 3 sigma, edges mirrored.

    The widest published one spans seven tenths of the image: as a matrix it costs no more than a narrow one.
    """
    return gaussian_filter1d(np.eye(length), sigma, axis=0, mode="reflect", truncate=3) if sigma > 0 else np.eye(length)


def pixelate(image: Image, rng: Generator, share: float) -> Image:
    """Shrink to a share of the size and enlarge again, both by boxes of pixels.

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Not used.
        share: Of height and width, rounded down to whole pixels.
    """
    height, width = image.shape[1:]
    small = (int(width * share), int(height * share))
    return _read(_picture(image).resize(small, Picture.Resampling.BOX).resize((width, height), Picture.Resampling.BOX))


def jpeg_compression(image: Image, rng: Generator, quality: int) -> Image:
    """Write and read a JPEG file, with Pillow's usual halved colour resolution.

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Not used.
        quality: Pillow's quality, 1 to 95.
    """
    file = BytesIO()
    _picture(image).save(file, "JPEG", quality=quality)
    return _read(Picture.open(file))


def _picture(image: Image) -> Picture.Image:
    return Picture.fromarray(np.round(image.transpose(1, 2, 0) * 255).astype(np.uint8))


def _read(picture: Picture.Image) -> Image:
    return np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
