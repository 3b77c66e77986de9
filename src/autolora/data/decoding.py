"""From the bytes of an image file to RGB with eight bits a channel: once, and correctly for every kind of image.

==============================  =================================================================
Image                           becomes
==============================  =================================================================
any, with an EXIF orientation   upright
greyscale, 1-bit                three equal channels
palette, RGBA, LA, tRNS         composited over white where transparent
CMYK, YCbCr                     RGB
16-bit greyscale                scaled from 0..65535 to 0..255 (Pillow alone would clip at 255)
floating point                  refused: its range is anyone's guess
truncated, unknown, gigantic    refused, by name
==============================  =================================================================
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from autolora.data.sources import Source, UnreadableImage

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"}
    | {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2"}
)
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000")
"""What may hide behind a suffix. A list of its own, because Pillow would start Ghostscript on an EPS named .jpg."""


@contextmanager
def named_failure(name: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into an `UnreadableImage` that says which image it was."""
    try:
        yield
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(name, "it is no image, or of a format that is not supported") from error
    except Exception as error:  # parsers of damaged files raise anything: OSError, SyntaxError, struct.error, KeyError
        reason = str(error).strip() or type(error).__name__
        raise UnreadableImage(name, reason.splitlines()[0]) from error


def read_rgb(source: Source) -> Image.Image:
    """Return the image in ``source``, upright, mode RGB.

    Raises:
        UnreadableImage: it cannot be read or decoded; the message names it.
    """
    with named_failure(source.name):
        return decode(source.read())


def decode(data: bytes) -> Image.Image:
    """Return the image encoded in ``data``, upright, mode RGB. Raises whatever Pillow does; see `named_failure`."""
    if not data:
        raise ValueError("the file is empty")
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:  # Pillow only warns up to twice the limit
            raise ValueError(f"{image.width} x {image.height} is more than {limit} pixels")
        image.load()  # the orientation of a PNG may stand behind its pixels
        return to_rgb(ImageOps.exif_transpose(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB.

    Raises:
        ValueError: the mode has no agreed range of values.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):
        image = eight_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return over_white(image)
    return image.convert("RGB")


def eight_bit(image: Image.Image) -> Image.Image:
    """16-bit greyscale (I;16, I;16B, or I as older Pillows read it) to mode L, 65535 to 255; LA where it has a tRNS."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"its grey values lie in {values.min()}..{values.max()}, outside the 0..65535 of 16 bits")
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 257 * 255, rounded to the nearest
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))))


def over_white(image: Image.Image) -> Image.Image:
    """Alpha compositing over a white ground."""
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
