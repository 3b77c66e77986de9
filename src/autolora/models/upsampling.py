"""Small images for a backbone of large ones: enlarged inside the model, so that an adversary acts on the small image.

The papers fine-tune backbones of 224 pixels on CIFAR in this way: eps is about the pixels of the 32x32 image, and the
gradient of a pixel is the sum over the pixels that it becomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from autolora.errors import InputError

Interpolation = Literal["nearest", "bilinear"]


@dataclass(frozen=True)
class Upsampling:
    """How images are enlarged between normalisation and backbone.

    Args:
        to: Side in pixels of the square that the backbone is shown.
        mode: ``"nearest"`` repeats pixels, as the papers' code does; ``"bilinear"`` weighs the four nearest ones, with
            the corners of the images aligned as areas, not as points.
    """

    to: int
    mode: Interpolation = "nearest"

    def check(self, image_size: int) -> None:
        """Refuse what is no enlargement.

        Raises:
            InputError: If images of that side are as large already.
        """
        if self.to <= image_size:
            raise InputError(
                f"upsample-to={self.to} enlarges no image of {image_size} pixels; give images a smaller --image-size, "
                "such as 32, or leave it out"
            )


class Upsample(nn.Module):
    """Enlarge images (N, C, H, W) to (N, C, S, S)."""

    def __init__(self, upsampling: Upsampling) -> None:
        super().__init__()
        self.upsampling = upsampling

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge normalised images: both ways weigh pixels with a sum of one, so normalising could come later too."""
        side = self.upsampling.to
        if self.upsampling.mode == "nearest":
            return F.interpolate(x, size=(side, side), mode="nearest")
        return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        """Say what is done, where torch prints a model."""
        return f"{self.upsampling.mode} to {self.upsampling.to}x{self.upsampling.to}"


def upsampling_of(record: Any, source: str) -> Upsampling:
    """Read what ``dataclasses.asdict`` has made of an :class:`Upsampling`, and JSON kept.

    Args:
        record: The entries; others beside them are not looked at.
        source: Where they stand, for the message.

    Raises:
        InputError: If they are none.
    """
    found: dict[str, Any] = record if isinstance(record, dict) else {}
    to: Any = found.get("to")
    mode: Any = found.get("mode")
    if type(to) is not int or mode not in get_args(Interpolation):
        raise InputError(f"{source}: its upsampling {record} is not as it was written; export the model again")
    return Upsampling(to, mode)
