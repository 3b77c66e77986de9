"""An image that somebody hands over: from untrusted bytes to what a model takes, cut as its own test images are."""

from __future__ import annotations

from torch import Tensor

from autolora.data import UnreadableImage, unit_range
from autolora.data.decoding import decode, named_failure
from autolora.data.pixels import pixels_for
from autolora.data.sources import BytesSource
from autolora.errors import InputError

LIMIT = 10 * 2**20  # bytes of a file: a photo of a good camera has less
TOO_LARGE = f"the file has more than {LIMIT // 2**20} MB; make the image smaller"


def as_the_model_takes_it(data: bytes, size: int, shorter: int) -> Tensor:
    """Decode the bytes of an image file, bring it to a model's size as test images are, and return it as a batch.

    Args:
        data: The file.
        size: S, in pixels.
        shorter: To how many pixels the shorter side is brought before the centre is cut out.

    Returns:
        The image, (1, 3, S, S) in [0, 1].

    Raises:
        InputError: If it is larger than :data:`LIMIT`, or no image that can be read.
    """
    if len(data) > LIMIT:
        raise InputError(TOO_LARGE)
    photo_size = size if shorter > size else size + 1
    pixels = pixels_for([BytesSource("upload", data)], size, photo_size=photo_size)
    try:
        with named_failure("the file"):
            pixels.put(0, pixels.prepare(decode(data)))
            return unit_range(pixels.centre_crops([0]))
    except UnreadableImage as error:
        raise InputError(f"this is no image that can be read ({error.reason}); give one as PNG, JPEG or WebP") from None
