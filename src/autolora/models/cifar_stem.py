"""timm's own ResNets with the stem of CIFAR work, registered with timm: full resolution from the first layer on.

One 3x3 convolution with stride 1 and padding 1 takes the place of the 7x7 one with stride 2, and nothing is pooled
before the first stage. At 32x32 the stages then work at 32, 16, 8 and 4 pixels; with timm's own stem it is 8, 4, 2 and
1. All else is timm's, names included, so that checkpoints of this architecture load by their own keys.

solo-learn's CIFAR checkpoints, and DeACL's, come from another stem that fits as well: it pads by 2, and gives maps of
34x34, 17x17, 9x9 and 5x5. ``stem_padding=2`` builds it; ``models.checkpoints``, which reads them, asks for it.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

__all__ = ["CifarStemResNet"]  # timm's decorator adds the models

# of the 50,000 training images; self-supervised CIFAR backbones were trained with these
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
STEM_STRIDE = 4  # of timm's stem: 2 in the convolution, 2 in the pooling


class CifarStemResNet(ResNet):
    """timm's ResNet behind another stem.

    Args:
        stem_padding: Zeros around the image: 1 keeps its size; 2, as solo-learn has it, adds two rows and columns.
        kwargs: Of timm's ResNet.
    """

    def __init__(self, stem_padding: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        old: Any = self.conv1
        like = {"device": old.weight.device, "dtype": old.weight.dtype}
        stem = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=stem_padding, bias=False, **like)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")  # as timm does
        self.stem_padding = stem_padding
        self.add_module("conv1", stem)  # in the place of timm's, of another type
        self.add_module("maxpool", nn.Identity())
        stages: Any = self.feature_info  # what timm's features_only=True reports
        for stage in stages:
            stage["reduction"] = max(1, stage["reduction"] // STEM_STRIDE)

    @property
    def stem_arguments(self) -> dict[str, int]:
        """Return what timm needs to build this stem again: nothing for the usual one."""
        return {} if self.stem_padding == 1 else {"stem_padding": self.stem_padding}


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


def _create(variant: str, pretrained: bool, **kwargs: Any) -> CifarStemResNet:
    return build_model_with_cfg(CifarStemResNet, variant, pretrained, **kwargs)


default_cfgs = {name: _cfg() for name in ("resnet18_cifar", "resnet34_cifar", "resnet50_cifar")}


@register_model
def resnet18_cifar(pretrained: bool = False, **kwargs: Any) -> CifarStemResNet:
    """ResNet-18 with a CIFAR stem: 11.17 million parameters and the head."""
    return _create("resnet18_cifar", pretrained, **{"block": BasicBlock, "layers": (2, 2, 2, 2), **kwargs})


@register_model
def resnet34_cifar(pretrained: bool = False, **kwargs: Any) -> CifarStemResNet:
    """ResNet-34 with a CIFAR stem: 21.28 million parameters and the head."""
    return _create("resnet34_cifar", pretrained, **{"block": BasicBlock, "layers": (3, 4, 6, 3), **kwargs})


@register_model
def resnet50_cifar(pretrained: bool = False, **kwargs: Any) -> CifarStemResNet:
    """ResNet-50 with a CIFAR stem: 23.50 million parameters and the head."""
    return _create("resnet50_cifar", pretrained, **{"block": Bottleneck, "layers": (3, 4, 6, 3), **kwargs})
