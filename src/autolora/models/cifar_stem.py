"""timm's own ResNets with the stem of CIFAR work, registered with timm: full resolution from the first layer on.

One 3x3 convolution with stride 1 and padding 1 takes the place of the 7x7 one with stride 2, and nothing is pooled
before the first stage. At 32x32 the stages then work at 32, 16, 8 and 4 pixels; with timm's own stem it is 8, 4, 2 and
1. All else is timm's, names included, so that checkpoints of this architecture load by their own keys.

solo-learn's CIFAR checkpoints come from another stem that fits as well: it pads by 2, and gives maps of 34x34.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

__all__: list[str] = []  # timm's decorator adds the models

# of the 50,000 training images; self-supervised CIFAR backbones were trained with these
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
STEM_STRIDE = 4  # of timm's stem: 2 in the convolution, 2 in the pooling


def _with_cifar_stem(**kwargs: Any) -> ResNet:
    """Build timm's ResNet and exchange its stem."""
    model: Any = ResNet(**kwargs)
    stem = model.conv1
    like = {"device": stem.weight.device, "dtype": stem.weight.dtype}
    model.conv1 = nn.Conv2d(stem.in_channels, stem.out_channels, 3, padding=1, bias=False, **like)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm does
    model.maxpool = nn.Identity()
    for stage in model.feature_info:  # what timm's features_only=True reports
        stage["reduction"] = max(1, stage["reduction"] // STEM_STRIDE)
    return model


def _cfg() -> dict[str, Any]:
    return {
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": (4, 4),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": CIFAR10_MEAN,
        "std": CIFAR10_STD,
        "first_conv": "conv1",
        "classifier": "fc",
    }


def _create(variant: str, pretrained: bool, **kwargs: Any) -> ResNet:
    return build_model_with_cfg(_with_cifar_stem, variant, pretrained, **kwargs)


default_cfgs = {name: _cfg() for name in ("resnet18_cifar", "resnet34_cifar", "resnet50_cifar")}


@register_model
def resnet18_cifar(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-18 with a CIFAR stem: 11.17 million parameters and the head."""
    return _create("resnet18_cifar", pretrained, **{"block": BasicBlock, "layers": (2, 2, 2, 2), **kwargs})


@register_model
def resnet34_cifar(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-34 with a CIFAR stem: 21.28 million parameters and the head."""
    return _create("resnet34_cifar", pretrained, **{"block": BasicBlock, "layers": (3, 4, 6, 3), **kwargs})


@register_model
def resnet50_cifar(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-50 with a CIFAR stem: 23.50 million parameters and the head."""
    return _create("resnet50_cifar", pretrained, **{"block": Bottleneck, "layers": (3, 4, 6, 3), **kwargs})
