"""A network that was trained on images in one scale, and is shown another, is found out, and its scale is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autolora.evaluation.input_scale import IMAGENET, rescale
from autolora.models.robust import Normalize

MEAN, STD = (0.3, 0.5, 0.6), (0.1, 0.2, 0.15)


def images(count: int = 128) -> tuple[Tensor, Tensor]:
    """Red or blue images, dark or bright: four classes that a threshold on two channels tells apart."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(count) % 4
    x = 0.45 + 0.05 * torch.randn(count, 3, 6, 6, generator=generator)
    x[:, 0] += torch.where(y % 2 == 0, 0.2, -0.1).view(-1, 1, 1)
    x[:, 2] += torch.where(y // 2 == 0, 0.25, -0.05).view(-1, 1, 1)
    return x.clamp(0, 1), y


class Prototypes(nn.Module):
    """Answer with the class whose mean colour, in the scale of training, is nearest: a network that knows one scale."""

    colours: Tensor

    def __init__(self, scale: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        x, y = images()
        shown = scale(x).mean(dim=(2, 3))
        self.register_buffer("colours", torch.stack([shown[y == label].mean(dim=0) for label in range(4)]))

    def forward(self, x: Tensor) -> Tensor:
        return -(x.mean(dim=(2, 3)).unsqueeze(1) - self.colours).square().sum(dim=2)


def imagenet(x: Tensor) -> Tensor:
    return Normalize(*IMAGENET)(x)


SCALES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "none": (lambda x: x, "not normalised"),
    "half": (lambda x: 2 * x - 1, "[-1, 1]"),
    "bytes": (lambda x: 255 * x, "0..255"),
    "imagenet": (imagenet, "ImageNet"),
}


@pytest.mark.parametrize("scale", SCALES)
def test_the_scale_that_the_weights_want_is_named(scale: str) -> None:
    """The wrapper normalises with values that the network behind it was not trained with."""
    (change, name), normalize = SCALES[scale], Normalize(MEAN, STD)
    network = Prototypes(change)
    x, y = images()
    tried = rescale(lambda x: network(normalize(x)), x, y, normalize)
    (wanted,) = [other for other in tried if name in other.name]
    assert wanted.better and wanted.rescaled.accuracy > 0.95 and wanted.given.accuracy < 0.9
    assert tried[0].better and tried[0].rescaled == wanted.rescaled  # another may do as well, none does better


def test_the_datas_own_values() -> None:
    x, y = images()
    normalize = Normalize(x.mean(dim=(0, 2, 3)).tolist(), x.std(dim=(0, 2, 3)).tolist())
    network = Prototypes(normalize)
    tried = rescale(network, x, y)  # nothing normalises, though the network was trained so
    (wanted,) = [other for other in tried if "data's mean and std" in other.name]
    assert wanted.better and wanted.rescaled.accuracy > 0.95 and tried[0].rescaled == wanted.rescaled


def test_channels_in_another_order() -> None:
    network = Prototypes(lambda x: x.flip(1))
    (best, *_) = rescale(network, *images())
    assert best.better and "blue, green, red" in best.name


@pytest.mark.parametrize("scale", SCALES)
def test_a_network_in_its_own_scale_is_left_alone(scale: str) -> None:
    change, _ = SCALES[scale]
    network = Prototypes(change)
    x, y = images()
    assert not any(tried.better for tried in rescale(lambda x: network(change(x)), x, y))


def test_a_network_normalised_as_it_wants_is_left_alone() -> None:
    normalize = Normalize(MEAN, STD)
    network = Prototypes(normalize)
    x, y = images()
    tried = rescale(lambda x: network(normalize(x)), x, y, normalize)
    assert not any(other.better for other in tried) and tried[0].given.accuracy > 0.95
    assert all(0 <= other.p <= 1 for other in tried)


def test_a_few_images_more_are_chance() -> None:
    """Eight of eight instead of four of eight is a large gain, and no evidence."""
    network = Prototypes(lambda x: 255 * x)
    x, y = images(8)
    best = rescale(network, x, y)[0]
    assert best.rescaled.accuracy - best.given.accuracy > 0.4 and not best.better
