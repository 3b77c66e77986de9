"""The architecture of a state dict, where its names and shapes leave no doubt.

Only ResNets are told apart: torchvision's, the same with a CIFAR stem, and the CIFAR ResNets of He et al. A table of
proportions gives the one that it could be, and whether every name and every shape is the same decides. Other families
share names and shapes among each other (ViT and DeiT, say) and differ in what they compute: nobody should guess there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from autolora.models.bundle_config import check_arguments
from autolora.models.checkpoints.names import stem_size
from autolora.models.creation import create
from autolora.models.weights import misfits

__all__ = ["architecture_by_shapes", "fits_architecture"]


class Proportions(NamedTuple):
    """What tells one ResNet from another.

    Args:
        kernel: Side of the stem's kernel.
        width: Channels of the stem.
        stages: Blocks in each stage.
        depth: Convolutions in a block.
        inner: Channels into and out of the second convolution of the first block; fewer go in where it has groups.
    """

    kernel: int
    width: int
    stages: tuple[int, ...]
    depth: int
    inner: tuple[int, int]


SMALL, LARGE = (2, 2, 2, 2), (3, 4, 6, 3)
RESNETS = {
    "resnet18": Proportions(7, 64, SMALL, 2, (64, 64)),
    "resnet34": Proportions(7, 64, LARGE, 2, (64, 64)),
    "resnet50": Proportions(7, 64, LARGE, 3, (64, 64)),
    "resnet101": Proportions(7, 64, (3, 4, 23, 3), 3, (64, 64)),
    "resnet152": Proportions(7, 64, (3, 8, 36, 3), 3, (64, 64)),
    "wide_resnet50_2": Proportions(7, 64, LARGE, 3, (128, 128)),
    "wide_resnet50_4": Proportions(7, 64, LARGE, 3, (256, 256)),
    "wide_resnet101_2": Proportions(7, 64, (3, 4, 23, 3), 3, (128, 128)),
    "resnext50_32x4d": Proportions(7, 64, LARGE, 3, (4, 128)),
    "resnext101_32x8d": Proportions(7, 64, (3, 4, 23, 3), 3, (8, 256)),
    "resnext101_64x4d": Proportions(7, 64, (3, 4, 23, 3), 3, (4, 256)),
    "resnet18_cifar": Proportions(3, 64, SMALL, 2, (64, 64)),
    "resnet34_cifar": Proportions(3, 64, LARGE, 2, (64, 64)),
    "resnet50_cifar": Proportions(3, 64, LARGE, 3, (64, 64)),
    "resnet20_cifar": Proportions(3, 16, (3, 3, 3), 2, (16, 16)),
    "resnet20w24_cifar": Proportions(3, 24, (3, 3, 3), 2, (24, 24)),
    "resnet20w32_cifar": Proportions(3, 32, (3, 3, 3), 2, (32, 32)),
    "resnet32_cifar": Proportions(3, 16, (5, 5, 5), 2, (16, 16)),
    "resnet56_cifar": Proportions(3, 16, (9, 9, 9), 2, (16, 16)),
}


def architecture_by_shapes(state: Mapping[str, Tensor]) -> str | None:
    """Return timm's name of the ResNet that these are weights of; None if it is none of the table."""
    found = _proportions(state)
    name = next((name for name, proportions in RESNETS.items() if proportions == found), None)
    return name if name is not None and fits_architecture(name, state) else None


def fits_architecture(name: str, state: Mapping[str, Tensor], arguments: Mapping[str, Any] | None = None) -> bool:
    """Whether every name and shape is that of an architecture of timm's, but for the classes of its head.

    Args:
        name: timm's name.
        state: Tensors by timm's names.
        arguments: With which timm builds the architecture.

    Raises:
        InputError: If timm cannot build it with them.
    """
    check_arguments(Path("config.json"), arguments or {})
    with torch.device("meta"):
        model = create(name, {**(arguments or {}), "num_classes": 0})
        head = state.get(f"{model.pretrained_cfg['classifier']}.weight")
        if head is not None and head.dim():
            model = create(name, {**(arguments or {}), "num_classes": len(head)})
    return not any(misfits(model.state_dict(), state).values())


def _proportions(state: Mapping[str, Tensor]) -> Proportions | None:
    kernel, inner = stem_size(state), state.get("layer1.0.conv2.weight")
    if kernel is None or inner is None or inner.dim() != 4:
        return None
    blocks = [tuple(name.split(".")[:2]) for name in state if name.startswith("layer")]
    stages = tuple(len({block for stage, block in blocks if stage == f"layer{i}"}) for i in range(1, 5))
    depth = sum(f"layer1.0.conv{i}.weight" in state for i in range(1, 4))
    return Proportions(
        kernel,
        len(state["conv1.weight"]),
        tuple(count for count in stages if count),
        depth,
        (inner.shape[1], inner.shape[0]),
    )
