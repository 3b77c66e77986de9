"""How often the doctor's comparison of images is right on a data set: pairs by likeness, and altered copies it finds.

Most pairs of images are of different classes, so a comparison that fires by chance fires mostly on such pairs.

python benchmarks/near_copies.py DATA [IMAGE_SIZE]
"""

from __future__ import annotations

import io
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from autolora.data import Splits, load_splits
from autolora.data.duplicates import LIKE, find_duplicates
from autolora.data.outlines import outlines

THRESHOLDS = (0.8, 0.85, 0.9, 0.95)
COPIES, ROWS = 1000, 256

Alter = Callable[[Image.Image], Image.Image]


def main(data: str, size: int = 32) -> None:
    """Print the three tables."""
    splits = load_splits(data, image_size=size, progress=False)
    start = time.perf_counter()
    found = find_duplicates(splits)
    seconds, memory = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    total = sum(len(images) for images in (splits.train, splits.val, splits.test))
    print(f"{total} images, typical likeness {found.alikeness:.2f}: {seconds:.0f} s, at most {memory:.0f} MiB")
    for split in ("test", "val"):
        twins = sum(twin.split == split for twin in found.leaks)
        print(f"{split}: {twins} of {len(getattr(splits, split))} have a twin")
    print(f"\n{'likeness':>8}  pairs  of different classes  of those expected by chance")
    for row in pairs(splits):
        print("{:8.2f}  {:5d}  {:20d}  {:27.0%}".format(*row))
    print(f"\nshare of {COPIES} altered copies at {LIKE} or more:")
    for name, share in recall(splits).items():
        print(f"  {name:<28} {share:6.1%}")


def pixels_of(splits: Splits) -> tuple[Tensor, Tensor]:
    """Return all images (N, 3, S, S) uint8, and their labels (N,)."""
    sets = (splits.test, splits.val, splits.train)
    return (
        torch.cat([images.pixels.centre_crops(images.rows) for images in sets]),
        torch.cat([images.labels for images in sets]),
    )


def pairs(splits: Splits) -> list[tuple[float, int, int, float]]:
    """Count pairs at each threshold, and those of different classes; the last is the share among all pairs."""
    pixels, labels = pixels_of(splits)
    vectors = torch.cat([outlines(pixels[start : start + ROWS]) for start in range(0, len(pixels), ROWS)])
    counts = torch.zeros(len(THRESHOLDS), 2, dtype=torch.long)
    for start in range(0, len(vectors), ROWS):
        likeness = (vectors[start : start + ROWS] @ vectors[start:].T).triu(diagonal=1)
        i, j = (likeness >= THRESHOLDS[0]).nonzero(as_tuple=True)
        different = labels[start + i] != labels[start + j]
        for row, threshold in enumerate(THRESHOLDS):
            enough = likeness[i, j] >= threshold
            counts[row] += torch.stack([enough.sum(), (enough & different).sum()])
    shares = labels.bincount() / len(labels)
    chance = 1 - float(shares.square().sum())
    return [(t, int(n), int(d), chance) for t, (n, d) in zip(THRESHOLDS, counts.tolist(), strict=True)]


def recall(splits: Splits) -> dict[str, float]:
    """Alter a sample of images in common ways, and return the share that is still found."""
    pixels, _ = pixels_of(splits)
    chosen = pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:COPIES]]
    originals, side = outlines(chosen), pixels.shape[-1]
    shares = {}
    for name, alter in alterations(side).items():
        images = [alter(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in chosen]
        copies = torch.stack([torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) for image in images])
        shares[name] = float(((originals * outlines(copies)).sum(dim=1) >= LIKE).float().mean())
    return shares


def alterations(side: int) -> dict[str, Alter]:
    """Return what happens to images on their way through the world."""

    def resized(image: Image.Image, to: int) -> Image.Image:
        return image.resize((to, to), Image.Resampling.BILINEAR).resize((side, side), Image.Resampling.BILINEAR)

    def cropped(image: Image.Image, margin: int) -> Image.Image:
        return resized(image.crop((margin, margin, side - margin, side - margin)), side)

    def compressed(image: Image.Image, quality: int) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    edge = side // 32
    return {
        "JPEG at quality 75": lambda image: compressed(image, 75),
        "JPEG at quality 30": lambda image: compressed(image, 30),
        "half the size and back": lambda image: resized(image, side // 2),
        "30 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
        "40 % less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
        "grey": lambda image: image.convert("L"),
        "cropped by 1/32 on all sides": lambda image: cropped(image, edge),
        "cropped by 2/32 on all sides": lambda image: cropped(image, 2 * edge),
        "shifted by 1/32": lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0, edge, 0, 1, 0)),
        "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    }


if __name__ == "__main__":
    main(*[int(word) if word.isdecimal() else word for word in sys.argv[1:]])  # type: ignore[arg-type]
