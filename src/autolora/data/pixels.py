"""Decoded images, and the two pipelines that cut batches of one size out of them.

Small images (below 96 pixels) are resized and centre-cropped once and lie in one tensor; a random crop is a shift by up
to S/8 with zeros moving in (the usual 4 pixels at 32). Photos follow the ImageNet recipe: the shorter side becomes
256/224 of S, then `RandomResizedCrop` for training and a centre crop otherwise.
"""

import copy
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as TF

from autolora.data.decoding import named_failure, read_rgb
from autolora.data.sources import Source

Array = NDArray[np.uint8]  # (height, width, 3)

PHOTO_SIZE = 96
"""Images of this size and larger take the photo pipeline."""

CACHE_BYTES = 2 * 2**30
"""Photos are kept decoded in memory up to this many bytes; those beyond are decoded from file each time."""


class Pixels(Protocol):
    """Images by row. A row is filled once, by `put`, and cut ever after; all cuts are (N, 3, S, S) uint8.

    Args:
        size: S, in pixels.
        shorter: To how many pixels the shorter side of an image is brought, before S x S are cut out.
    """

    size: int
    shorter: int

    def prepare(self, image: Image.Image) -> Array:
        """Return what is kept of a decoded image."""

    def put(self, row: int, pixels: Array) -> None:
        """Keep what `prepare` made."""

    def centre_crops(self, rows: Sequence[int]) -> Tensor:
        """Return the same cut each time, for evaluation."""

    def random_crops(self, rows: Sequence[int]) -> Tensor:
        """Return a cut drawn from torch's global random generator, for training."""


def pixels_for(
    sources: Sequence[Source], size: int, *, photo_size: int = PHOTO_SIZE, shift: int | None = None
) -> Pixels:
    """Return the pipeline for S = ``size``, with a row for each source.

    Args:
        sources: The images.
        size: S, in pixels.
        photo_size: From here on, images are photos.
        shift: How far a random crop shifts a small image, in pixels; None for S/8.
    """
    return SmallPixels(len(sources), size, shift) if size < photo_size else PhotoPixels(sources, size)


class SmallPixels:
    """All images of a data set in one uint8 tensor (N, 3, S, S), which may lie on any device.

    Random numbers come from the CPU wherever the images lie, so that a seed gives the same crops on every device.
    """

    def __init__(self, count: int, size: int, shift: int | None = None) -> None:
        self.size, self.shorter, self.shift = size, size, size // 8 if shift is None else shift
        self.images = torch.zeros((count, 3, size, size), dtype=torch.uint8)

    def prepare(self, image: Image.Image) -> Array:
        """Shorter side to S, then the central S x S."""
        return np.array(TF.center_crop(resize_shorter(image, self.size), [self.size, self.size]))

    def put(self, row: int, pixels: Array) -> None:
        """Copy ``pixels`` (S, S, 3) into the tensor."""
        self.images[row] = channels_first(pixels)

    def centre_crops(self, rows: Sequence[int]) -> Tensor:
        """Return the images as they are kept."""
        return self.images[torch.as_tensor(rows, dtype=torch.long).to(self.images.device)]

    def random_crops(self, rows: Sequence[int]) -> Tensor:
        """Return the images shifted by up to S/8 pixels each way, a different shift for each; zeros move in."""
        return shifted(self.centre_crops(rows), self.shift)

    def on(self, device: torch.device) -> "SmallPixels":
        """Return the same images on a device, from where every batch is cut and augmented."""
        moved = copy.copy(self)
        moved.images = self.images.to(device)
        return moved


class PhotoPixels:
    """Photos with their shorter side at round(256/224 S), in memory while there is room and from file otherwise."""

    def __init__(self, sources: Sequence[Source], size: int, cache_bytes: int = CACHE_BYTES) -> None:
        self.size, self.shorter = size, round(size * 256 / 224)
        self.free = cache_bytes
        self.sources: dict[int, Source] = dict(enumerate(sources))
        # numpy, not torch: a spawned worker would be sent one file descriptor for every tensor
        self.kept: dict[int, Array] = {}

    def prepare(self, image: Image.Image) -> Array:
        """Shorter side to round(256/224 S), all of the image."""
        return np.array(resize_shorter(image, self.shorter))

    def put(self, row: int, pixels: Array) -> None:
        """Keep ``pixels`` (H, W, 3) if they fit; the source is needed no more then."""
        if pixels.nbytes <= self.free:
            self.free -= pixels.nbytes
            self.kept[row] = pixels
            del self.sources[row]

    def photo(self, row: int) -> Tensor:
        """One resized photo, (3, H, W) uint8."""
        kept = self.kept.get(row)
        if kept is None:
            source = self.sources[row]
            image = read_rgb(source)
            with named_failure(source.name):
                kept = self.prepare(image)
        return channels_first(kept)

    def centre_crops(self, rows: Sequence[int]) -> Tensor:
        """Return the central S x S of each photo."""
        return torch.stack([TF.center_crop(self.photo(row), [self.size, self.size]) for row in rows])

    def random_crops(self, rows: Sequence[int]) -> Tensor:
        """`RandomResizedCrop` as torchvision has it: 8 to 100 % of the area, sides 3:4 to 4:3, resized to S x S."""
        return torch.stack([self.random_crop(self.photo(row)) for row in rows])

    def random_crop(self, photo: Tensor) -> Tensor:
        """One crop (3, S, S) of a photo (3, H, W)."""
        top, left, height, width = RandomResizedCrop.get_params(photo, scale=[0.08, 1.0], ratio=[3 / 4, 4 / 3])
        size = [self.size, self.size]
        cut: Tensor = TF.resized_crop(
            photo, top, left, height, width, size, interpolation=InterpolationMode.BILINEAR, antialias=True
        )
        return cut


def resize_shorter(image: Image.Image, shorter: int) -> Image.Image:
    """Return the shorter side to ``shorter`` pixels, bilinear with antialiasing.

    Raises:
        ValueError: the result would be gigantic, because the image is very elongated.
    """
    pixels = shorter**2 * max(image.size) / min(image.size)
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"with its shorter side at {shorter} it would have more than {Image.MAX_IMAGE_PIXELS} pixels")
    resized: Image.Image = TF.resize(image, [shorter], interpolation=InterpolationMode.BILINEAR, antialias=True)
    return resized


def channels_first(pixels: Array) -> Tensor:
    """(H, W, 3) to (3, H, W), without a copy."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def shifted(x: Tensor, reach: int) -> Tensor:
    """Each image of ``x`` (N, C, S, S) moved by up to ``reach`` pixels in both directions, zeros moving in."""
    count, channels, _, size = x.shape
    padded = F.pad(x, [reach] * 4)
    top, left = torch.randint(0, 2 * reach + 1, (2, count, 1)).to(x.device)
    run = torch.arange(size, device=x.device)
    rows, columns = top + run, left + run  # (N, S), each a run of neighbours
    places = (rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).view(count, 1, -1)
    # one gather is several times faster than indexing unfolded windows, above all on a busy machine
    return padded.flatten(2).gather(2, places.expand(-1, channels, -1)).view_as(x)


def unit_range(x: Tensor) -> Tensor:
    """Return images in 0..255, uint8, as float32 in [0, 1] on the same device; float images as they are.

    Done where the images are used, it saves the CPU as much time as cropping photos takes, and three of the four bytes
    that would have to be moved. A division by 255 is rounded alike on every device.
    """
    if x.dtype != torch.uint8:
        return x
    # a tensor, not a number: on CUDA, division by a number is multiplication by its reciprocal, one ulp off
    return x.float().div_(torch.full((), 255.0, device=x.device))


def mirrored(x: Tensor) -> Tensor:
    """Each image of ``x`` (N, C, H, W) flipped left to right with probability one half."""
    flip = (torch.rand(x.shape[0]) < 0.5).to(x.device)
    return torch.where(flip[:, None, None, None], x.flip(-1), x)
