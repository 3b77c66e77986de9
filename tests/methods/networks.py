"""The network that the methods are tested on, and the divergence of TRADES written out."""

from __future__ import annotations

from timm.models import build_model_with_cfg
from torch import Tensor

from autolora.models import RobustModel
from autolora.models.backbones import split
from autolora.models.resnet_cifar import CifarResNet


def tiny() -> RobustModel:
    """Eight layers, four channels, three classes."""
    return split(build_model_with_cfg(CifarResNet, "resnet20_cifar", False, depth=8, width=4), classes=3)


def sum_kl(natural: Tensor, adversarial: Tensor) -> Tensor:
    """KL(natural || adversarial) of two logits, summed over the batch."""
    p = natural.softmax(1)
    return (p * (natural.log_softmax(1) - adversarial.log_softmax(1))).sum()
