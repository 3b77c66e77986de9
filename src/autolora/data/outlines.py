"""What an image looks like at a glance, as a unit vector: copies of one picture point the same way.

Brightness, contrast, colour, compression and size of a copy may differ; the edges in its middle do not.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 16
"""Side of the thumbnail: small enough that compression leaves it alone, large enough to hold edges."""

REACH = 5
"""Side of the square whose mean and contrast are taken away from its central pixel."""

NOISE = 2.0
"""Grey levels of contrast that compression makes of nothing; edges below it count less."""

FAINTEST = 1.0
"""Root mean square, in grey levels, of the edges that an image must have to be compared by them."""

LUMA = (0.299, 0.587, 0.114)
"""Grey of red, green and blue (ITU-R BT.601)."""


def grey(images: Tensor) -> Tensor:
    """Brightness (N, 1, S, S) in 0..255 of images (N, 3, S, S) uint8."""
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    return (images.float() * weights).sum(dim=1, keepdim=True)


def outlines(images: Tensor) -> Tensor:
    r"""Return unit vectors (N, 256), whose product says how alike two images look, in [-1, 1].

    The image becomes a grey thumbnail t. With the mean m and the contrast s of the 5x5 pixels around each pixel,

    .. math:: v = \frac{t - m}{s + 2} \cdot w

    where w falls from 1 in the middle to 0 beyond the border, since a frame says nothing of the picture in it. A smooth
    ground, on which all photographs of a ship or a plane agree, vanishes in t - m. v is centred and scaled to
    length 1. An image without edges, such as a blank one, gives zeros: it is like no other.

    Args:
        images: (N, 3, S, S) uint8.
    """
    thumbnails = F.adaptive_avg_pool2d(grey(images), SIDE)
    edges = thumbnails - _around(thumbnails)
    vectors = (edges / (_around(edges.square()).sqrt() + NOISE) * _window(images.device)).flatten(1)
    vectors = F.normalize(vectors - vectors.mean(dim=1, keepdim=True), dim=1)
    faint = edges.flatten(1).square().mean(dim=1).sqrt() < FAINTEST
    return vectors.masked_fill(faint.unsqueeze(1), 0)


def _around(thumbnails: Tensor) -> Tensor:
    """Mean of the square around each pixel, as far as it lies inside."""
    return F.avg_pool2d(thumbnails, REACH, stride=1, padding=REACH // 2, count_include_pad=False)


def _window(device: torch.device) -> Tensor:
    """Return weights (SIDE, SIDE): the square root of a Hann window, zero just outside the thumbnail."""
    side = torch.hann_window(SIDE + 2, periodic=False, device=device)[1:-1].sqrt()
    return side[:, None] * side[None, :]
