"""Models: timm backbones behind one interface, and the branches that training runs through them."""

from autolora.models import cifar_stem as cifar_stem  # registers ResNets with a CIFAR stem with timm
from autolora.models import resnet_cifar as resnet_cifar  # registers the CIFAR ResNets with timm
from autolora.models import wide_resnet as wide_resnet  # registers what Salman et al. have and timm has not
from autolora.models.backbones import PACKAGED, build_model, native_size
from autolora.models.branches import Branch, FrozenNormBranch, JoinedBranch, LowRankBranch, evaluating
from autolora.models.robust import Architecture, Normalize, RobustModel
from autolora.models.upsampling import Upsampling

__all__ = [
    "PACKAGED",
    "Architecture",
    "Branch",
    "FrozenNormBranch",
    "JoinedBranch",
    "LowRankBranch",
    "Normalize",
    "RobustModel",
    "Upsampling",
    "build_model",
    "evaluating",
    "native_size",
]
