"""The 15 common corruptions of Hendrycks & Dietterich (ICLR 2019), at 5 severities, on any images.

Two sets of constants were published: for CIFAR-10-C, at 32x32 pixels, and for ImageNet-C, at 224x224. Images with a
side below :data:`SMALL` pixels take the first, all others the second. Lengths are in pixels and are not scaled with the
image, except where the published ones are multiples of its side (``elastic_transform``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from zlib import crc32

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from autolora.errors import InputError
from autolora.evaluation.corruptions import blur, digital, noise, weather

SMALL = 64  # sides below this many pixels take the constants of CIFAR-10-C
SMALLEST = 8
SEVERITIES = (1, 2, 3, 4, 5)
Benchmark = Literal["CIFAR-10-C", "ImageNet-C"]


@dataclass(frozen=True)
class Corruption:
    """One type of corruption.

    Args:
        function: Image (3, H, W) in [0, 1], random stream and constants to image; the result may leave [0, 1].
        cifar: The constants published for CIFAR-10-C, from severity 1 to 5.
        imagenet: The same for ImageNet-C.
        departure: What replaces a part of the published definition that cannot be had here; empty if nothing does.
    """

    function: Callable[..., NDArray[np.float32]]
    cifar: tuple[tuple[Any, ...], ...]
    imagenet: tuple[tuple[Any, ...], ...]
    departure: str = ""

    def __call__(self, image: NDArray[np.float32], severity: int, rng: Generator) -> NDArray[np.float32]:
        """Corrupt one image (3, H, W); the result is rounded to the 256 levels of an image file, as is published."""
        table = self.cifar if benchmark(*image.shape[1:]) == "CIFAR-10-C" else self.imagenet
        corrupted = self.function(image, rng, *table[severity - 1])
        return (np.round(corrupted.clip(0, 1) * 255) / 255).astype(np.float32)


def _each(*constants: float) -> tuple[tuple[float, ...], ...]:
    return tuple((constant,) for constant in constants)


def _of_244(*rows: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    """Take multiples of 244 pixels, which the ImageNet-C script writes at 224, as multiples of the side."""
    return tuple(tuple(244 / 224 * share for share in row) for row in rows)


CORRUPTIONS = {
    "gaussian_noise": Corruption(
        noise.gaussian_noise, _each(0.04, 0.06, 0.08, 0.09, 0.10), _each(0.08, 0.12, 0.18, 0.26, 0.38)
    ),
    "shot_noise": Corruption(noise.shot_noise, _each(500, 250, 100, 75, 50), _each(60, 25, 12, 5, 3)),
    "impulse_noise": Corruption(
        noise.impulse_noise, _each(0.01, 0.02, 0.03, 0.05, 0.07), _each(0.03, 0.06, 0.09, 0.17, 0.27)
    ),
    "defocus_blur": Corruption(
        blur.defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": Corruption(
        blur.glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": Corruption(
        blur.motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        departure="own code for ImageMagick's motion blur",
    ),
    "zoom_blur": Corruption(
        blur.zoom_blur,
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    "snow": Corruption(
        weather.snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        departure="own code for ImageMagick's motion blur",
    ),
    "frost": Corruption(
        weather.frost,
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        departure="own texture",
    ),
    "fog": Corruption(
        weather.fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": Corruption(weather.brightness, _each(0.05, 0.1, 0.15, 0.2, 0.3), _each(0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption(digital.contrast, _each(0.75, 0.5, 0.4, 0.3, 0.15), _each(0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": Corruption(
        digital.elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        _of_244((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    ),
    "pixelate": Corruption(digital.pixelate, _each(0.95, 0.9, 0.85, 0.75, 0.65), _each(0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": Corruption(digital.jpeg_compression, _each(80, 65, 58, 50, 40), _each(25, 18, 15, 10, 7)),
}


@dataclass(frozen=True)
class Streams:
    """A random stream for every image of a data set, whatever batch, shard or process it comes in.

    Args:
        seed: Seed of all streams, not negative.
        indices: Place in the data set of each image of a batch, not negative.
    """

    seed: int
    indices: Sequence[int]

    def __post_init__(self) -> None:
        if min(self.seed, *self.indices, 0) < 0:
            raise InputError(f"seed={self.seed}, indices={list(self.indices)}: seeds and indices are not negative")

    def stream(self, position: int, name: str, severity: int) -> Generator:
        """Return the stream of the image at a position of the batch, for one type and severity."""
        return np.random.default_rng([self.seed, self.indices[position], crc32(name.encode()), severity])


def benchmark(height: int, width: int) -> Benchmark:
    """Say whose constants images of a size take."""
    return "CIFAR-10-C" if min(height, width) < SMALL else "ImageNet-C"


def corrupt(x: Tensor, name: str, severity: int, streams: Streams) -> Tensor:
    """Corrupt every image of a batch.

    Args:
        x: Images (N, 3, H, W) in [0, 1], floating point, H and W at least 8.
        name: One of :data:`CORRUPTIONS`.
        severity: 1 to 5.
        streams: Where chance comes from. The same seed and index give the same image, whatever else is in the batch.

    Returns:
        Images of the same shape, type and device, in [0, 1], at multiples of 1 / 255.

    Raises:
        InputError: For an unknown name or severity, and for images that are not as above.
    """
    check_choice([name], [severity])
    _check_images(x)
    if len(streams.indices) != len(x):
        raise ValueError(f"{len(streams.indices)} indices for {len(x)} images: every image needs its own")
    corruption, images = CORRUPTIONS[name], x.detach().float().cpu().numpy()
    corrupted = np.empty_like(images)
    for position, image in enumerate(images):
        corrupted[position] = corruption(image, severity, streams.stream(position, name, severity))
    return torch.from_numpy(corrupted).to(x)


def check_choice(names: Sequence[str], severities: Sequence[int]) -> None:
    """Raise an InputError for what is no type or no severity."""
    for name in names:
        if name not in CORRUPTIONS:
            raise InputError(f"{name!r} is no corruption; choose from {', '.join(CORRUPTIONS)}")
    for severity in severities:
        if severity not in SEVERITIES:
            raise InputError(f"severity {severity} does not exist; choose from 1 (weak) to 5 (strong)")


def _check_images(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < SMALLEST or not x.is_floating_point():
        raise InputError(
            f"images of shape {tuple(x.shape)} and type {x.dtype} cannot be corrupted; "
            f"give floating-point images (N, 3, H, W) of at least {SMALLEST}x{SMALLEST} pixels"
        )
    if len(x) and not bool(((x >= 0) & (x <= 1)).all()):
        raise InputError(f"pixels from {x.min():.3g} to {x.max():.3g} cannot be corrupted; give images in [0, 1]")
