"""The CIFAR ResNets of He et al. (2016), section 4.2, registered with timm.

A 3x3 stem, three stages of ``n`` basic blocks at 32x32, 16x16 and 8x8, global average pooling and one linear layer:
6n + 2 layers. Shortcuts are the paper's option A: the identity, subsampled and padded with zero channels, so that a
shortcut holds no parameters.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

__all__ = ["BasicBlock", "CifarResNet", "ZeroPadShortcut"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ZeroPadShortcut(nn.Module):
    """Option A of He et al. (2016): every second pixel, and zero channels on both sides. No parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        missing = out_channels - in_channels
        self.stride = stride
        self.padding = (missing // 2, missing - missing // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.padding))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to a shortcut (He et al., 2016, figure 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else ZeroPadShortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        return F.relu(out.add_(self.shortcut(x)), inplace=True)  # memory that nobody else reads


class CifarResNet(nn.Module):
    """A CIFAR ResNet behind timm's model interface.

    Args:
        depth: Total layers, 6n + 2.
        width: Channels of the first stage; the stages hold width, 2 width and 4 width channels.
        num_classes: Classes of the linear layer; 0 leaves it out and the model returns features (N, 4 width).
        in_chans: Channels of the input image.

    Raises:
        ValueError: If ``depth`` is not 6n + 2.
    """

    def __init__(self, depth: int = 20, width: int = 16, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth={depth} is not of the form 6n + 2 with n >= 1; use 20, 32, 44, 56 or 110")
        blocks = (depth - 2) // 6
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = 4 * width
        self.conv1 = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.linear: nn.Module
        self.reset_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one for ``num_classes`` classes; 0 removes it."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool={global_pool!r}: CIFAR ResNets pool by the average only; leave it out")
        self.num_classes = num_classes
        self.linear = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) to the last feature map (N, 4 width, H / 4, W / 4)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.layer3(self.layer2(self.layer1(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool a feature map and classify it: logits (N, num_classes), or features with ``pre_logits``."""
        x = x.mean(dim=(2, 3))
        return x if pre_logits else self.linear(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) to logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))


def _cfg() -> dict[str, Any]:
    return {
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": (8, 8),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": "conv1",
        "classifier": "linear",
    }


def _create(variant: str, pretrained: bool, **kwargs: Any) -> CifarResNet:
    return build_model_with_cfg(CifarResNet, variant, pretrained, **kwargs)


default_cfgs = {
    name: _cfg()
    for name in ("resnet20_cifar", "resnet20w24_cifar", "resnet20w32_cifar", "resnet32_cifar", "resnet56_cifar")
}


@register_model
def resnet20_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-20 of He et al. (2016): 16, 32 and 64 channels, 0.27 million parameters."""
    return _create("resnet20_cifar", pretrained, depth=20, width=16, **kwargs)


@register_model
def resnet20w24_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-20 with 24, 48 and 96 channels, 0.61 million parameters."""
    return _create("resnet20w24_cifar", pretrained, depth=20, width=24, **kwargs)


@register_model
def resnet20w32_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-20 with 32, 64 and 128 channels, 1.08 million parameters."""
    return _create("resnet20w32_cifar", pretrained, depth=20, width=32, **kwargs)


@register_model
def resnet32_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-32 of He et al. (2016): 16, 32 and 64 channels, 0.46 million parameters."""
    return _create("resnet32_cifar", pretrained, depth=32, width=16, **kwargs)


@register_model
def resnet56_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-56 of He et al. (2016): 16, 32 and 64 channels, 0.85 million parameters."""
    return _create("resnet56_cifar", pretrained, depth=56, width=16, **kwargs)
