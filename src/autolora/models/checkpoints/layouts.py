"""torchvision's layouts of architectures that timm has by other names: MobileNet-v2, MNASNet and VGG.

Both build the same layers in the same order, so that the names of torchvision's state dict, one after the other, are
those of timm's. The order is that of the two networks; in which order a file holds its tensors does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor
from torchvision import models

__all__ = ["TORCHVISION_LAYOUTS", "Layout", "layout_of"]

TORCHVISION_LAYOUTS: dict[str, tuple[str, Callable[..., Any]]] = {  # timm's name of what torchvision builds so
    "mobilenet_v2": ("mobilenetv2_100", models.mobilenet_v2),
    "mnasnet0_5": ("mnasnet_050", models.mnasnet0_5),
    "mnasnet0_75": ("mnasnet_075", models.mnasnet0_75),
    "mnasnet1_0": ("mnasnet_100", models.mnasnet1_0),
    "vgg11": ("vgg11", models.vgg11),
    "vgg11_bn": ("vgg11_bn", models.vgg11_bn),
    "vgg13": ("vgg13", models.vgg13),
    "vgg13_bn": ("vgg13_bn", models.vgg13_bn),
    "vgg16": ("vgg16", models.vgg16),
    "vgg16_bn": ("vgg16_bn", models.vgg16_bn),
    "vgg19": ("vgg19", models.vgg19),
    "vgg19_bn": ("vgg19_bn", models.vgg19_bn),
}
LAST_LAYERS = ("classifier.1.weight", "classifier.6.weight")  # one of them is in each of these layouts


class Layout(NamedTuple):
    """Weights by timm's names, and timm's name of what they are weights of."""

    architecture: str
    state: dict[str, Tensor]


def layout_of(state: Mapping[str, Tensor]) -> Layout | None:
    """Return the weights of one of torchvision's networks above by timm's names; None if they are of none of them.

    Args:
        state: Tensors by name; all names and all shapes must be torchvision's, but for the classes of the last layer.
    """
    last = next((name for name in LAST_LAYERS if name in state), None)
    if last is None or not state[last].dim():
        return None
    for name, (architecture, _) in TORCHVISION_LAYOUTS.items():
        theirs, ours = _shapes(name, len(state[last]))
        if {key: tuple(value.shape) for key, value in state.items() if _counts(key)} == theirs:
            # timm's VGG has convolutions of 7x7 and 1x1 in the place of the first two linear layers
            kept = {new: state[old].reshape(shape) for old, (new, shape) in zip(theirs, ours.items(), strict=True)}
            return Layout(architecture, kept)
    return None


@lru_cache(maxsize=32)
def _shapes(name: str, classes: int) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return names and shapes of torchvision's network and of timm's, in the order in which both build their layers."""
    architecture, build = TORCHVISION_LAYOUTS[name]
    with torch.device("meta"):
        both = build(weights=None, num_classes=classes), timm.create_model(architecture, num_classes=classes)
    theirs, ours = (
        {key: tuple(value.shape) for key, value in model.state_dict().items() if _counts(key)} for model in both
    )
    return theirs, ours


def _counts(name: str) -> bool:
    """Whether a tensor takes part in a prediction; how many batches there were, older files do not say."""
    return not name.endswith("num_batches_tracked")
