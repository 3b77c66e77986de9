"""Corruptions against the published formulas, read naively pixel by pixel, against scipy, Pillow and ImageMagick."""

from __future__ import annotations

import colorsys
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from autolora.errors import InputError
from autolora.evaluation.corruptions import CORRUPTIONS, SEVERITIES, Streams, benchmark, blur, corrupt, digital, weather
from autolora.evaluation.corruptions.scores import corruption_scores

Array = NDArray[Any]
CHANCE = ["gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "frost", "fog"]
CHANCE += ["elastic_transform"]
SIZES = [(9, 14), (70, 64)]  # one for either set of constants


def natural(height: int, width: int, seed: int = 0) -> Array:
    """A scene: smooth coloured shapes with edges and some texture, (3, H, W) in [0, 1], at whole grey levels."""
    rng = np.random.default_rng(seed)
    shapes = ndimage.gaussian_filter(rng.standard_normal((3, height, width)), (0.4, height / 12, width / 12))
    edges = ndimage.gaussian_filter(rng.standard_normal((height, width)), min(height, width) / 8) > 0
    scene = 0.45 + 0.15 * shapes / shapes.std() + 0.15 * edges + 0.04 * rng.standard_normal((3, height, width))
    levels: Array = (np.round(scene.clip(0, 1) * 255) / 255).astype(np.float32)
    return levels


def batch(count: int, height: int, width: int) -> Tensor:
    return torch.from_numpy(np.stack([natural(height, width, seed) for seed in range(count)]))


def one(image: Array, name: str, severity: int, index: int = 0) -> Array:
    corrupted: Array = corrupt(torch.from_numpy(image)[None], name, severity, Streams(0, [index]))[0].numpy()
    return corrupted


# the constants of CIFAR-10-C and of ImageNet-C, severity 1 to 5, entered a second time: a slip shows
PUBLISHED: dict[str, tuple[list[Any], list[Any]]] = {
    "gaussian_noise": ([0.04, 0.06, 0.08, 0.09, 0.10], [0.08, 0.12, 0.18, 0.26, 0.38]),
    "shot_noise": ([500, 250, 100, 75, 50], [60, 25, 12, 5, 3]),
    "impulse_noise": ([0.01, 0.02, 0.03, 0.05, 0.07], [0.03, 0.06, 0.09, 0.17, 0.27]),
    "defocus_blur": (
        [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
        [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    ),
    "glass_blur": (
        [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
        [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    ),
    "motion_blur": ([(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)], [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)]),
    "zoom_blur": (
        [np.arange(1, end, 0.01) for end in (1.06, 1.11, 1.16, 1.21, 1.26)],
        [np.arange(1, *rest) for rest in ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))],
    ),
    "snow": (
        [
            *[(0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9)],
            *[(0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)],
        ],
        [
            *[(0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7)],
            *[(0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)],
        ],
    ),
    "frost": (
        [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
        [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
    ),
    "fog": (
        [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
        [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    ),
    "brightness": ([0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5]),
    "contrast": ([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05]),
    "elastic_transform": (  # in sides of the image; at 224 the script writes 244
        [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)],
        [
            (244 * a / 224, 244 * b / 224, 244 * c / 224)
            for a, b, c in [(2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)]
        ],
    ),
    "pixelate": ([0.95, 0.9, 0.85, 0.75, 0.65], [0.6, 0.5, 0.4, 0.3, 0.25]),
    "jpeg_compression": ([80, 65, 58, 50, 40], [25, 18, 15, 10, 7]),
}


def published(name: str, severity: int, size: tuple[int, ...]) -> Any:
    return PUBLISHED[name][0 if min(size) < 64 else 1][severity - 1]


def both(name: str, severity: int, size: tuple[int, int]) -> tuple[Array, Array, Any, Generator]:
    """An image, what becomes of it, with which constants, and the random stream that did it."""
    image = natural(*size)
    stream = Streams(0, [0]).stream(0, name, severity)
    return image, one(image, name, severity), published(name, severity, size), stream


def agree(found: Array, expected: Array) -> None:
    """Equal up to the rounding to 256 levels."""
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=0.5 / 255 + 1e-4)


each_level = pytest.mark.parametrize(("size", "severity"), [(size, s) for size in SIZES for s in SEVERITIES], ids=str)


# --- what is published


def test_the_fifteen_types_in_the_order_of_the_paper() -> None:
    names = "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog"
    names += " brightness contrast elastic_transform pixelate jpeg_compression"
    assert " ".join(CORRUPTIONS) == names
    assert all(len(c.cifar) == len(c.imagenet) == 5 for c in CORRUPTIONS.values())
    assert {name: c.departure for name, c in CORRUPTIONS.items() if c.departure} == {
        "motion_blur": "own code for ImageMagick's motion blur",
        "snow": "own code for ImageMagick's motion blur",
        "frost": "own texture",
    }


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(32, 32, "CIFAR-10-C"), (63, 500, "CIFAR-10-C"), (500, 63, "CIFAR-10-C"), (64, 64, "ImageNet-C")],
)
def test_the_shorter_side_says_whose_constants_are_taken(height: int, width: int, expected: str) -> None:
    assert benchmark(height, width) == expected
    image = np.full((3, height, width), 0.5, dtype=np.float32)
    raised = {"CIFAR-10-C": 0.3, "ImageNet-C": 0.5}[expected]
    np.testing.assert_allclose(one(image, "brightness", 5), 0.5 + raised, atol=0.5 / 255)


# --- noise


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise_has_the_published_deviation(size: int, severity: int) -> None:
    """68.27 % of a normal variable lie within its deviation, wherever the rest is cut off."""
    scale = published("gaussian_noise", severity, (size, size))
    x = torch.full((4, 3, size, size), 0.5)
    noise = corrupt(x, "gaussian_noise", severity, Streams(0, range(4))) - 0.5
    half = 0.5 / 255  # of a grey level: rounding moves the border by up to that
    assert (noise.abs() <= scale - half).float().mean() < 0.6827 + 0.02
    assert (noise.abs() <= scale + half).float().mean() > 0.6827 - 0.02
    assert abs(float(noise.mean())) < 0.04 * scale  # four standard errors
    assert abs(float(noise[:, 0].flatten() @ noise[:, 1].flatten())) < 0.08 * float(noise[:, 0].square().sum())


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_is_poisson(size: int, severity: int) -> None:
    """Mean x and variance x / photons, in multiples of 1 / photons; dark enough that hardly anything is cut off."""
    photons = published("shot_noise", severity, (size, size))
    x = torch.full((4, 3, size, size), 0.2)
    seen = corrupt(x, "shot_noise", severity, Streams(0, range(4))).double()
    assert float(seen.mean()) == pytest.approx(0.2, rel=0.05)
    assert float(seen.var()) == pytest.approx(0.2 / photons, rel=0.1)
    if photons < 100:  # or grey levels are coarser than photons
        counts = seen * photons
        assert float((counts - counts.round()).abs().max()) <= 0.5 / 255 * photons + 1e-4


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_hits_single_colour_values(size: int, severity: int) -> None:
    share = published("impulse_noise", severity, (size, size))
    x = torch.full((4, 3, size, size), 102 / 255)
    seen = corrupt(x, "impulse_noise", severity, Streams(0, range(4)))
    hit = seen != x
    count = x.numel()
    assert set(seen[hit].tolist()) == {0.0, 1.0}
    assert abs(float(hit.float().mean()) - share) < 4 * math.sqrt(share * (1 - share) / count)
    assert abs(float(seen[hit].mean()) - 0.5) < 4 * math.sqrt(0.25 / (share * count))
    alone = hit.sum(dim=1) == 1
    assert alone.sum() > 0.5 * hit.any(dim=1).sum()  # not whole pixels


# --- blur


def naive_disc(radius: float, softness: float) -> Array:
    """The published kernel: a sampled disc, then a small Gaussian with mirrored borders, by loops."""
    reach, half = (8, 1) if radius <= 8 else (int(radius), 2)
    side = 2 * reach + 1
    disc = [[float((i - reach) ** 2 + (j - reach) ** 2 <= radius**2) for j in range(side)] for i in range(side)]
    total = sum(map(sum, disc))
    bell = [math.exp(-(d**2) / (2 * softness**2)) for d in range(-half, half + 1)]

    def mirrored(i: int) -> int:
        return -i if i < 0 else 2 * (side - 1) - i if i >= side else i

    soft = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            for a, left in enumerate(bell):
                for b, right in enumerate(bell):
                    soft[i, j] += left * right * disc[mirrored(i + a - half)][mirrored(j + b - half)]
    kernel: Array = soft / sum(bell) ** 2 / total
    return kernel


@each_level
def test_defocus_is_a_disc_with_mirrored_edges(size: tuple[int, int], severity: int) -> None:
    image, found, (radius, softness), _ = both("defocus_blur", severity, size)
    kernel = naive_disc(radius, softness)
    agree(found, np.stack([ndimage.correlate(c.astype(float), kernel, mode="mirror") for c in image]))


@pytest.mark.parametrize("level", [*PUBLISHED["defocus_blur"][0], *PUBLISHED["defocus_blur"][1]], ids=str)
def test_the_disc_is_the_published_kernel_cut_where_it_is_zero(level: tuple[float, float]) -> None:
    kernel, expected = blur.disc(*level), naive_disc(*level)
    outside = (len(expected) - len(kernel)) // 2
    np.testing.assert_allclose(np.pad(kernel, outside), expected, atol=1e-7)


def naive_glass(moves: Array, image: Array, reach: int) -> Array:
    """From the last visited pixel to the first, each takes what its neighbour holds at that moment."""
    image = image.copy()
    height, width = image.shape[1:]
    for h in range(height - reach, reach, -1):
        for w in range(width - reach, reach, -1):
            down, right = moves[:, h - reach - 1, w - reach - 1]
            image[:, h, w] = image[:, h + down, w + right]
    return image


@each_level
def test_glass_blur_passes_pixels_on_in_order(size: tuple[int, int], severity: int) -> None:
    image, found, (sigma, reach, rounds), stream = both("glass_blur", severity, size)
    held = ndimage.gaussian_filter(image.astype(float), (0, sigma, sigma), mode="nearest")
    for _ in range(rounds):
        moves = stream.integers(-reach, reach, (2, size[0] - 2 * reach, size[1] - 2 * reach))
        held = naive_glass(moves, held, reach)
    agree(found, ndimage.gaussian_filter(held, (0, sigma, sigma), mode="nearest"))


@pytest.mark.parametrize("moves", [(0, 1), (1, 0), (0, -2), (-2, -2), (0, 0)], ids=str)
def test_a_value_is_passed_on_as_far_as_it_goes(moves: tuple[int, int]) -> None:
    """Pixels that had their turn pass on what they took: a drift forwards all comes from the border."""
    height, width, reach = 12, 15, 2
    field = np.broadcast_to(np.array(moves)[:, None, None], (2, height - 4, width - 4))
    places = np.arange(height * width, dtype=float).reshape(1, height, width)
    source = blur.displaced(field, height, width, reach)
    np.testing.assert_array_equal(source.reshape(1, height, width), naive_glass(field, places, reach))


MAGICK = {  # convert -motion-blur 3x2+20 and 3x2-110 of ImageMagick 6.9.11-60 on the picture of the test
    20: """0 38 43  0  0  0  0  0  0    1  4  0  0  0  0  0  0  0    0  0 11 28 51  0  0  0  0
           0  0  0  0  0 75 85  0  0    0  0  0  0  0  0  0  0  0""",
    -110: """0  0 80 45  2  0  0  0  0    0  0 38 45  2  0  0  0  0    0  0  0 45  2  0  0  0  0
             0  0  0 20  2  0 85  0  0    0  0  0  6  2  0 75  0  0""",
}


@pytest.mark.parametrize("angle", MAGICK)
def test_motion_blur_is_that_of_imagemagick(angle: int) -> None:
    picture = np.zeros((1, 5, 9), dtype=np.float32)
    picture[0, 3, 6], picture[0, 0, 2] = 255, 128
    expected = np.array(MAGICK[angle].split(), dtype=float).reshape(5, 9)
    np.testing.assert_allclose(blur.trail(picture, 3, 2, angle)[0], expected, atol=0.51)


def naive_trail(image: Array, radius: float, sigma: float, angle: float) -> Array:
    """Every pixel looks along one direction, at whole pixels, and no further than the edge."""
    count, (layers, height, width) = 2 * math.ceil(radius) + 1, image.shape
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(count)]
    blurred = np.zeros(image.shape)
    for i, weight in enumerate(weights):
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        rows = [min(max(h + down, 0), height - 1) for h in range(height)]
        columns = [min(max(w + right, 0), width - 1) for w in range(width)]
        for layer in range(layers):
            blurred[layer] += weight / sum(weights) * image[layer][rows][:, columns]
    return blurred


@each_level
def test_motion_blur_looks_along_one_direction(size: tuple[int, int], severity: int) -> None:
    image, found, (radius, sigma), stream = both("motion_blur", severity, size)
    angle = stream.uniform(-45, 45)
    agree(found, naive_trail(image, radius, sigma, angle))


def naive_zoom(image: Array, factor: float) -> Array:
    """scipy's zoom of the middle, cut to size."""
    size = image.shape[1:]
    part = [math.ceil(side / factor) for side in size]
    start = [(side - inner) // 2 for side, inner in zip(size, part, strict=True)]
    middle = image[:, start[0] : start[0] + part[0], start[1] : start[1] + part[1]].astype(float)
    large = ndimage.zoom(middle, (1, factor, factor), order=1)
    cut = [(outer - side) // 2 for side, outer in zip(size, large.shape[1:], strict=True)]
    zoomed: Array = large[:, cut[0] : cut[0] + size[0], cut[1] : cut[1] + size[1]]
    return zoomed


@each_level
def test_zoom_blur_is_a_mean_of_magnifications(size: tuple[int, int], severity: int) -> None:
    image, found, factors, _ = both("zoom_blur", severity, size)
    layers = [image, *(naive_zoom(image, factor) for factor in factors)]
    agree(found, np.mean(layers, axis=0))


# --- weather


@each_level
def test_snow_is_trailed_noise_on_a_bleached_scene(size: tuple[int, int], severity: int) -> None:
    image, found, (mean, spread, zoom, threshold, radius, sigma, keep), stream = both("snow", severity, size)
    flakes = naive_zoom(stream.normal(mean, spread, (1, *size)), zoom)
    flakes[flakes < threshold] = 0
    flakes = naive_trail(flakes.clip(0, 1), radius, sigma, stream.uniform(-135, -45))
    grey = np.asarray(0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2])
    bleached = keep * image + (1 - keep) * np.maximum(image, grey * 1.5 + 0.5)
    agree(found, bleached + flakes + np.rot90(flakes, 2, axes=(1, 2)))


@each_level
def test_frost_lies_over_the_scene(size: tuple[int, int], severity: int) -> None:
    image, found, (keep, cover), stream = both("frost", severity, size)
    agree(found, keep * image + cover * weather.crystals(*size, stream))


def test_crystals_are_as_bright_and_as_rough_as_photographs_of_frost() -> None:
    """Over pictures of frosted windows: means 0.48 to 0.81, deviations 0.06 to 0.17, power as f^-1.2 to f^-1.8."""
    side = 128
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    edges = 0.02 * 1.5 ** np.arange(9)
    slopes = []
    for seed in range(12):
        texture = weather.crystals(side, side, np.random.default_rng(seed))
        grey = texture.mean(axis=0)
        assert 0.45 < grey.mean() < 0.83 and 0.04 < grey.std() < 0.18
        assert texture[2].mean() >= texture[0].mean()
        power = np.abs(np.fft.fft2((grey - grey.mean()) * np.outer(np.hanning(side), np.hanning(side)))) ** 2
        rings = [power[(frequency > low) & (frequency <= 1.5 * low)].mean() for low in edges[:-1]]
        slopes.append(np.polyfit(np.log(edges[:-1]), np.log(rings), 1)[0])
    assert -1.8 < np.mean(slopes) < -1.2


def naive_plasma(side: int, decay: float, rng: Generator) -> Array:
    """Diamond-square on a torus, point by point: squares, then edges to the right, then edges downwards."""
    cloud, step, amplitude = np.zeros((side, side)), side, 100.0**2
    while step >= 2:
        half, starts = step // 2, range(0, side, step)
        for down, right, neighbours in [
            (half, half, [(-half, -half), (-half, half), (half, -half), (half, half)]),
            (0, half, [(0, -half), (0, half), (-half, 0), (half, 0)]),
            (half, 0, [(0, -half), (0, half), (-half, 0), (half, 0)]),
        ]:
            noise = rng.uniform(-1, 1, (len(starts), len(starts)))
            for i, y in enumerate(starts):
                for j, x in enumerate(starts):
                    around = [cloud[(y + down + a) % side, (x + right + b) % side] for a, b in neighbours]
                    cloud[y + down, x + right] = sum(around) / 4 + amplitude * noise[i, j]
        step, amplitude = half, amplitude / decay**2
    cloud -= cloud.min()
    return cloud / cloud.max()


@each_level
def test_fog_is_a_diamond_square_cloud(size: tuple[int, int], severity: int) -> None:
    image, found, (density, decay), stream = both("fog", severity, size)
    cloud = naive_plasma({9: 16, 70: 128}[size[0]], decay, stream)[: size[0], : size[1]]
    agree(found, (image + density * cloud) * image.max() / (image.max() + density))


@each_level
def test_brightness_raises_the_value_of_hsv(size: tuple[int, int], severity: int) -> None:
    amount = published("brightness", severity, size)
    image = natural(*size)
    image[:, 0, :3] = np.array([[0, 1, 0.5], [0, 1, 0.5], [0, 1, 0.5]])  # black, white and grey
    image[:, 1, :3] = np.array([[0, 1, 1e-42], [0.2, 0, 0], [0, 0, 1e-42]])  # full saturation, and as good as black
    expected = np.empty_like(image)
    for y, x in np.ndindex(*size):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
        expected[:, y, x] = colorsys.hsv_to_rgb(hue, saturation, min(value + amount, 1))
    expected[:, 1, 2] = amount  # or what is invisible would glow in full saturation
    agree(one(image, "brightness", severity), expected)


# --- digital


@each_level
def test_contrast_is_drawn_to_the_mean_of_each_channel(size: tuple[int, int], severity: int) -> None:
    share = published("contrast", severity, size)
    image = natural(*size)
    means = [float(np.mean([float(v) for v in channel.ravel()])) for channel in image]
    agree(
        one(image, "contrast", severity),
        np.stack([(c - m) * share + m for c, m in zip(image, means, strict=True)]),
    )


@each_level
def test_elastic_is_an_affine_map_and_then_a_smooth_field(size: tuple[int, int], severity: int) -> None:
    """cv2.warpAffine mirrors about pixel centres, the second map about the edges of pixels, both bilinear."""
    image, found, shares, stream = both("elastic_transform", severity, size)
    side = min(size)
    strength, smoothness, shear = (side * share for share in shares)
    middle, arm = (size[0] // 2, size[1] // 2), side // 3
    points = np.array([[middle[0] + a * arm, middle[1] + b * arm] for a, b in [(1, 1), (-1, 1), (-1, -1)]])
    moved = points + stream.uniform(-shear, shear, (3, 2))
    back = np.linalg.lstsq(np.column_stack([moved, np.ones(3)]), points.astype(float), rcond=None)[0]  # (3, 2)
    y, x = np.mgrid[: size[0], : size[1]]
    read = np.moveaxis(np.stack([y, x, np.ones(size)], axis=-1) @ back, -1, 0)
    warped = [ndimage.map_coordinates(c.astype(float), read, order=1, mode="mirror") for c in image]
    fields = [
        strength * ndimage.gaussian_filter(stream.uniform(-1, 1, size), smoothness, mode="reflect", truncate=3)
        for _ in range(2)
    ]
    places = [y + fields[1], x + fields[0]]
    agree(found, np.stack([ndimage.map_coordinates(c, places, order=1, mode="reflect") for c in warped]))


def test_the_affine_map_brings_moved_points_back() -> None:
    back = digital.inverse_affine((40, 60), 5.0, np.random.default_rng(0))
    moves = np.random.default_rng(0).uniform(-5, 5, (3, 2))
    for point, move in zip([(33, 43), (7, 43), (7, 17)], moves, strict=True):
        np.testing.assert_allclose(back @ [point[0] + move[0], point[1] + move[1], 1], [*point, 1], atol=1e-9)


def test_pixelate_at_half_the_size_is_the_mean_of_four() -> None:
    image = natural(64, 66)
    expected = image.reshape(3, 32, 2, 33, 2).mean(axis=(2, 4)).repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(one(image, "pixelate", 2), expected, atol=1.01 / 255)


def picture(image: Array) -> Image.Image:
    return Image.fromarray(np.round(image * 255).astype(np.uint8).transpose(1, 2, 0))


def pixels(found: Image.Image) -> Array:
    return np.asarray(found.convert("RGB")).transpose(2, 0, 1) / 255


@each_level
def test_pixelate_and_jpeg_are_those_of_pillow(size: tuple[int, int], severity: int) -> None:
    share, quality = published("pixelate", severity, size), published("jpeg_compression", severity, size)
    image, box = natural(*size), Image.Resampling.BOX
    small = picture(image).resize((int(size[1] * share), int(size[0] * share)), box)
    np.testing.assert_allclose(
        one(image, "pixelate", severity), pixels(small.resize((size[1], size[0]), box)), atol=1e-6
    )
    file = io.BytesIO()
    picture(image).save(file, format="JPEG", quality=quality)
    np.testing.assert_allclose(one(image, "jpeg_compression", severity), pixels(Image.open(file)), atol=1e-6)
    between = (image - 0.3 / 255).clip(0)  # goes to the nearest level, as a file of the image would
    np.testing.assert_array_equal(one(between, "pixelate", severity), one(image, "pixelate", severity))


# --- all of them


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(8, 8), (8, 31), (33, 12), (64, 101)], ids=str)
def test_images_stay_images(name: str, size: tuple[int, int]) -> None:
    """In range, at the levels of an image file, also where there is nothing to see; and the input is left alone."""
    flat = [torch.full((3, *size), level) for level in (0.0, 0.4, 1.0)]
    x = torch.stack([torch.from_numpy(natural(*size)), *flat])
    before = x.clone()
    for severity in (1, 5):
        found = corrupt(x, name, severity, Streams(3, range(4)))
        assert found.shape == x.shape and found.dtype == torch.float32
        assert bool(found.isfinite().all()) and found.min() >= 0 and found.max() <= 1
        np.testing.assert_allclose(found * 255, (found * 255).round(), atol=1e-4)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform"])
@pytest.mark.parametrize("size", [(8, 13), (64, 70)], ids=str)
def test_what_only_moves_light_leaves_a_flat_image_flat(name: str, size: tuple[int, int]) -> None:
    x = torch.full((1, 3, *size), 0.4)
    for severity in SEVERITIES:
        np.testing.assert_allclose(corrupt(x, name, severity, Streams(0, [0])), x, atol=1.01 / 255)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_every_batch(name: str) -> None:
    x = batch(5, 12, 16)
    drawn: dict[str, Any] = np.random.get_state(legacy=False)
    state = drawn["state"]["key"].copy(), torch.get_rng_state()
    whole = corrupt(x, name, 3, Streams(7, range(10, 15)))
    order = [3, 0, 4]
    assert torch.equal(corrupt(x[order], name, 3, Streams(7, [13, 10, 14])), whole[order])
    assert torch.equal(corrupt(x[2:], name, 3, Streams(7, range(12, 15))), whole[2:])
    drawn = np.random.get_state(legacy=False)
    assert np.array_equal(drawn["state"]["key"], state[0]) and torch.equal(torch.get_rng_state(), state[1])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_seed_index_and_severity_each_have_their_own_chance(name: str) -> None:
    x = batch(1, 12, 16).repeat(2, 1, 1, 1)
    found = corrupt(x, name, 4, Streams(0, [0, 1]))
    again = corrupt(x, name, 4, Streams(1, [0, 1]))
    assert torch.equal(found[0], found[1]) == (name not in CHANCE)
    assert torch.equal(found, again) == (name not in CHANCE)
    streams = Streams(0, [0])
    draws = {float(streams.stream(0, other, s).random()) for other in CORRUPTIONS for s in SEVERITIES}
    assert len(draws) == 75


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_type_is_kept(dtype: torch.dtype) -> None:
    x = batch(2, 9, 9)
    found = corrupt(x.to(dtype), "contrast", 2, Streams(0, range(2)))
    assert found.dtype == dtype
    np.testing.assert_allclose(found.float(), corrupt(x, "contrast", 2, Streams(0, range(2))), atol=0.01)


def photos(shared: Callable[[str], Path], side: int, count: int) -> Tensor:
    cut = []
    with zipfile.ZipFile(shared("data/ants_bees.zip")) as archive:
        for name in [name for name in archive.namelist() if name.endswith(".jpg")][: 8 * count : 8]:
            photo = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            cut.append(pixels(photo.resize((side, side), Image.Resampling.BOX)))
    return torch.from_numpy(np.stack(cut)).float()


UNEVEN = ["glass_blur", "motion_blur", "snow", "frost", "fog"]  # in published constants, or in few random draws


@pytest.mark.parametrize(("side", "count"), [(32, 24), (224, 4)])
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "elastic_transform"])
def test_photos_change_more_with_severity(shared: Callable[[str], Path], name: str, side: int, count: int) -> None:
    """The mean absolute change grows at every step, or what is lost of the correlation from first to last.

    Elastic is left out: its published constants trade the affine map for the local one, and the change falls.
    """
    x = photos(shared, side, count)
    found = [corrupt(x, name, severity, Streams(0, range(count))) for severity in SEVERITIES]
    if name in UNEVEN:
        first, last = (
            [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(x.numpy(), found[end].numpy(), strict=True)]
            for end in (0, -1)
        )
        assert 1 - np.mean(last) > 1.2 * (1 - np.mean(first))
    else:
        changes = [float((one - x).abs().mean()) for one in found]
        assert changes == sorted(changes) and changes[0] > 0.002 and changes[-1] > 1.2 * changes[0]


# --- what is refused


@pytest.mark.parametrize(
    ("x", "name", "severity", "message"),
    [
        (torch.rand(1, 3, 8, 8), "rain", 1, "'rain' is no corruption; choose from gaussian_noise"),
        (torch.rand(1, 3, 8, 8), "fog", 0, "severity 0 does not exist"),
        (torch.rand(1, 3, 8, 8), "fog", 6, "severity 6 does not exist"),
        (torch.rand(1, 1, 8, 8), "fog", 1, r"shape \(1, 1, 8, 8\)"),
        (torch.rand(3, 8, 8), "fog", 1, r"shape \(3, 8, 8\)"),
        (torch.rand(1, 3, 8, 7), "fog", 1, "at least 8x8 pixels"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "fog", 1, "torch.uint8"),
        (torch.full((1, 3, 8, 8), 1.5), "fog", 1, r"pixels from 1.5 to 1.5 .* \[0, 1\]"),
        (torch.full((1, 3, 8, 8), torch.nan), "fog", 1, r"\[0, 1\]"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(x: Tensor, name: str, severity: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        corrupt(x, name, severity, Streams(0, [0]))


def test_streams_are_one_per_image_and_not_negative() -> None:
    with pytest.raises(ValueError, match="1 indices for 2 images"):
        corrupt(batch(2, 8, 8), "fog", 1, Streams(0, [0]))
    for seed, indices in [(-1, [0]), (0, [0, -2])]:
        with pytest.raises(InputError, match="not negative"):
            Streams(seed, indices)


def test_no_images_are_no_error() -> None:
    assert corrupt(torch.empty(0, 3, 8, 8), "fog", 1, Streams(0, [])).shape == (0, 3, 8, 8)


# --- scores


def dark_or_bright(x: Tensor) -> Tensor:
    """A model that tells dark from bright images."""
    mean = x.mean(dim=(1, 2, 3))
    return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def some(count: int) -> tuple[Tensor, Tensor]:
    x = batch(count, 10, 12) * torch.linspace(0.3, 1.6, count).view(-1, 1, 1, 1)
    x = x.clamp(0, 1)
    return x, dark_or_bright(x).argmax(dim=1)


def test_scores_count_every_type_and_severity() -> None:
    x, y = some(12)
    names, severities = ["brightness", "fog", "frost"], [2, 5]
    scores = corruption_scores(
        dark_or_bright, iter([(x[:5], y[:5]), (x[5:], y[5:])]), names, severities, seed=3, progress=False
    )
    expected: dict[str, list[int]] = {}
    for name in names:
        for severity in severities:
            right = [
                int(dark_or_bright(corrupt(x[i : i + 1], name, severity, Streams(3, [i]))).argmax()) == int(y[i])
                for i in range(12)
            ]
            expected.setdefault(name, []).append(sum(right))
    assert {count for counts in expected.values() for count in counts} - {0, 12}  # or nothing is shown
    for name, (weak, strong) in expected.items():
        found = scores["types"][name]
        assert found["correct"] == {"2": weak, "5": strong}
        assert found["accuracy"] == {"2": weak / 12, "5": strong / 12}
        assert found["mean_accuracy"] == pytest.approx((weak + strong) / 24)
    assert scores["mean_accuracy"] == pytest.approx(sum(map(sum, expected.values())) / 72)
    assert (scores["total"], scores["seed"], scores["constants"]) == (12, 3, "CIFAR-10-C")
    assert [scores["types"][name]["departure"] for name in names] == ["", "", "own texture"]
    assert json.loads(json.dumps(scores)) == scores


def test_parts_of_a_data_set_add_up() -> None:
    x, y = some(10)
    names, severities = ["gaussian_noise", "fog"], [5]

    def count(start: int, stop: int, size: int) -> list[int]:
        parts = zip(torch.split(x[start:stop], size), torch.split(y[start:stop], size), strict=True)
        scores = corruption_scores(dark_or_bright, parts, names, severities, places=range(start, 40), progress=False)
        return [score["correct"]["5"] for score in scores["types"].values()]

    whole = count(0, 10, 10)
    assert whole == count(0, 10, 3)
    assert whole == [a + b for a, b in zip(count(0, 4, 4), count(4, 10, 4), strict=True)]


def test_an_image_is_altered_alike_in_any_sample() -> None:
    """Seen through a model that tells whether the first pixel came out brighter than the middle grey that it was."""
    x, y = torch.full((40, 3, 8, 8), 0.5), torch.ones(40, dtype=torch.long)

    def brighter(images: Tensor) -> Tensor:
        return torch.stack([-images[:, 0, 0, 0] + 0.5, images[:, 0, 0, 0] - 0.5], dim=1)

    def right(places: Sequence[int]) -> int:
        batch = [(x[list(places)], y[list(places)])]
        scores = corruption_scores(brighter, batch, ["gaussian_noise"], [5], places=places, progress=False)
        return scores["types"]["gaussian_noise"]["correct"]["5"]

    each = [right([place]) for place in range(40)]
    assert 0 < sum(each) < 40
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist()
    for sample in (shuffled[:7], shuffled[7:], shuffled):
        assert right(sample) == sum(each[place] for place in sample)


def test_all_types_and_severities_by_default_and_nan_is_never_right() -> None:
    x = torch.full((1, 3, 8, 8), 0.5)
    scores = corruption_scores(lambda x: x.new_full((len(x), 2), torch.nan), [(x, torch.zeros(1))], progress=False)
    assert list(scores["types"]) == list(CORRUPTIONS)
    assert all(list(score["correct"]) == list("12345") for score in scores["types"].values())
    assert scores["mean_accuracy"] == 0


@pytest.mark.parametrize(("names", "severities"), [([], [1]), (["fog"], []), (["fog", "fog"], [1]), (["fog"], [1, 1])])
def test_a_mean_over_nothing_or_over_one_thing_twice_is_refused(names: list[str], severities: list[int]) -> None:
    with pytest.raises(InputError, match="none twice"):
        corruption_scores(dark_or_bright, [some(2)], names, severities, progress=False)


def test_names_are_checked_before_any_image_is_read() -> None:
    def never() -> Iterator[tuple[Tensor, Tensor]]:
        raise AssertionError
        yield

    with pytest.raises(InputError, match="'rain' is no corruption"):
        corruption_scores(dark_or_bright, never(), ["fog", "rain"], progress=False)
    with pytest.raises(ValueError, match="at least one image"):
        corruption_scores(dark_or_bright, [], progress=False)
