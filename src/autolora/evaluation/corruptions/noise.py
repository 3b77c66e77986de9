"""Gaussian, shot and impulse noise (Hendrycks & Dietterich, 2019): drawn anew for every colour value of every pixel."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.float32]  # (3, H, W) in [0, 1]


def gaussian_noise(image: Image, rng: Generator, scale: float) -> Image:
    """Add noise of low light, x + scale * N(0, 1).

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Where the noise comes from.
        scale: Standard deviation in pixel units.
    """
    return image + np.float32(scale) * rng.standard_normal(image.shape, dtype=np.float32)


def shot_noise(image: Image, rng: Generator, photons: float) -> Image:
    """Count photons, Poisson(photons * x) / photons.

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Where the noise comes from.
        photons: How many a white pixel sends on average; fewer are noisier.
    """
    return (rng.poisson(image.astype(np.float64) * photons) / photons).astype(np.float32)


def impulse_noise(image: Image, rng: Generator, share: float) -> Image:
    """Replace a share of the colour values by 0 or 1, each with probability 1/2 ("salt and pepper").

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Where the noise comes from.
        share: Probability of a colour value to be hit, in [0, 1].
    """
    hit, salt = rng.random(image.shape) < share, rng.random(image.shape) < 0.5
    return np.where(hit, salt.astype(np.float32), image)
