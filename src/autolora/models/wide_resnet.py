"""A wide ResNet that timm lacks. Needs timm alone: exports hand this file on as it is."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import Bottleneck, ResNet

default_cfgs = {
    "wide_resnet50_4": {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "conv1",
        "classifier": "fc",
    }
}


@register_model
def wide_resnet50_4(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-50 with four times the inner channels (Zagoruyko and Komodakis, 2016); timm has it with two."""
    arguments = {"block": Bottleneck, "layers": (3, 4, 6, 3), "base_width": 256, **kwargs}
    return build_model_with_cfg(ResNet, "wide_resnet50_4", pretrained, **arguments)
