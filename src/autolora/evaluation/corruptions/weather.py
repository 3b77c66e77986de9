"""Snow, frost, fog and brightness (Hendrycks & Dietterich, 2019)."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.fft import fftfreq, irfft2, rfft2, rfftfreq

from autolora.evaluation.corruptions.blur import magnified, trail

Image = NDArray[np.float32]  # (3, H, W) in [0, 1]
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, of red, green and blue
BLACK = 1e-6  # far below one grey level
NEEDLES = 6  # directions in which frost grows


def snow(
    image: Image,
    rng: Generator,
    mean: float,
    spread: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    keep: float,
) -> Image:
    """Bleach the scene and let flakes fall over it, one layer and the same turned by 180 degrees.

    Flakes are normal noise, magnified, cut below a threshold and trailed downwards. The scene becomes
    keep * x + (1 - keep) * max(x, 1.5 * luma + 0.5).

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Where flakes and wind come from.
        mean: Mean of the noise; more is more snow.
        spread: Standard deviation of the noise.
        zoom: Size of the flakes in pixels.
        threshold: What is darker is no flake.
        radius: Length of a flake's trail; see :func:`~autolora.evaluation.corruptions.blur.trail`.
        sigma: How slowly the trail fades, in pixels.
        keep: Share of the scene's own colours.
    """
    noise = rng.normal(mean, spread, size=(1, *image.shape[1:])).astype(np.float32)
    flakes = magnified(noise, zoom)
    flakes = np.where(flakes < threshold, np.float32(0), flakes).clip(0, 1)
    flakes = trail(flakes, radius, sigma, rng.uniform(-135, -45))
    luma = np.tensordot(LUMA, image, axes=1)
    bleached = np.maximum(image, 1.5 * luma + 0.5)
    return keep * image + (1 - keep) * bleached + flakes + flakes[:, ::-1, ::-1]


def frost(image: Image, rng: Generator, keep: float, cover: float) -> Image:
    """Lay ice crystals over the scene, keep * x + cover * texture.

    The published sets crop photographs of frosted windows; the texture here is our own, see :func:`crystals`.

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Where the crystals come from.
        keep: Weight of the scene.
        cover: Weight of the texture.
    """
    height, width = image.shape[1:]
    return keep * image + cover * crystals(height, width, rng)


def crystals(height: int, width: int, rng: Generator) -> Image:
    """Return a texture (3, H, W) in [0, 1] of bluish needles in several directions.

    Each direction is noise within a narrow angle whose amplitude falls with frequency f as 1 / f; the brightest
    direction shows. That leaves a power of about f^-1.6, as in photographs of frost, and brightness, contrast and tint
    are drawn from the ranges that such photographs have.
    """
    down, across = fftfreq(height)[:, None], rfftfreq(width)[None]
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf  # no constant part
    angle = np.arctan2(down, across)
    grown = np.full((height, width), -np.inf)
    for direction in np.pi * (np.arange(NEEDLES) + rng.random()) / NEEDLES:
        aside = np.sin(angle - direction)  # a needle and its opposite are one
        amplitude = 1 / frequency * np.exp(-((aside / 0.2) ** 2))
        needles = irfft2(rfft2(rng.standard_normal((height, width))) * amplitude, s=(height, width))
        grown = np.maximum(grown, needles / needles.std())
    grown = (grown - grown.mean()) / grown.std()
    grey = rng.uniform(0.48, 0.8) + rng.uniform(0.06, 0.14) * grown
    blue = rng.uniform(0, 0.08)
    return (grey + blue * np.array([-1, 0, 1])[:, None, None]).clip(0, 1).astype(np.float32)


def fog(image: Image, rng: Generator, density: float, decay: float) -> Image:
    """Add a cloud and rescale to the old maximum m, (x + density * cloud) * m / (m + density).

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Where the cloud comes from.
        density: Weight of the cloud.
        decay: How fast the cloud's detail fades with its size; see :func:`plasma`.
    """
    height, width = image.shape[1:]
    cloud = plasma(1 << (max(height, width) - 1).bit_length(), decay, rng)[:height, :width]
    brightest = image.max()
    return ((image + density * cloud) * brightest / (brightest + density)).astype(np.float32)


def plasma(size: int, decay: float, rng: Generator) -> NDArray[np.float64]:
    """Return a seamless cloud (size, size), scaled to [0, 1], by the diamond-square algorithm (Fournier et al., 1982).

    From one point, the grid is halved until it is full: the middle of each square, then the middle of each edge,
    becomes the mean of its four neighbours plus noise from U(-a, a), where a is divided by decay^2 after each halving.

    Args:
        size: Side, a power of two.
        decay: How fast the noise fades.
        rng: Where the noise comes from.
    """
    cloud = np.zeros((size, size))
    amplitude, step = 1.0, size
    while step > 1:
        half, count = step // 2, size // step
        noise = rng.uniform(-amplitude, amplitude, size=(3, count, count))
        corners = cloud[::step, ::step]
        below = corners + np.roll(corners, -1, axis=0)
        middles = (below + np.roll(below, -1, axis=1)) / 4 + noise[0]
        cloud[half::step, half::step] = middles
        above = middles + np.roll(middles, 1, axis=0)
        cloud[::step, half::step] = (corners + np.roll(corners, -1, axis=1) + above) / 4 + noise[1]
        beside = middles + np.roll(middles, 1, axis=1)
        cloud[half::step, ::step] = (below + beside) / 4 + noise[2]
        amplitude, step = amplitude / decay**2, half
    return (cloud - cloud.min()) / np.ptp(cloud)


def brightness(image: Image, rng: Generator, amount: float) -> Image:
    """Raise the value V of hue, saturation and value by ``amount``, up to 1.

    V is the largest colour value, and at fixed hue and saturation all three are proportional to it.

    Args:
        image: Image (3, H, W) in [0, 1].
        rng: Not used.
        amount: What is added to V.
    """
    value = image.max(axis=0)
    raised = np.minimum(value + np.float32(amount), 1)
    return np.where(value > BLACK, image * (raised / value.clip(BLACK)), raised)  # black has no hue: it turns grey
