"""The model that is trained, attacked and shipped, and other ways through its backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from autolora.models.branches import Branch
from autolora.models.upsampling import Upsample, Upsampling


@dataclass(frozen=True)
class Architecture:
    """How timm builds the backbone and its head again, so that a trained model loads without this package's classes.

    Args:
        name: Name in timm's registry, such as ``resnet18``.
        classifier: Name of the last layer in timm's model, such as ``fc``.
        input_size: (C, H, W) of the images that the model was trained on.
        arguments: Further arguments of ``timm.create_model``, such as ``img_size``.
        upsampling: How images are enlarged before the backbone sees them; None: it sees them as they are.
    """

    name: str
    classifier: str
    input_size: tuple[int, int, int]
    arguments: dict[str, Any] = field(default_factory=dict)
    upsampling: Upsampling | None = None

    @property
    def network_size(self) -> tuple[int, int, int]:
        """Return (C, H, W) of what the backbone sees, which decides about time and memory."""
        if self.upsampling is None:
            return self.input_size
        return (self.input_size[0], self.upsampling.to, self.upsampling.to)


class Normalize(nn.Module):
    """Normalisation inside the model, so that attacks and radii stay in pixel units: (x - mean) / std per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to normalised images."""
        return (x - self.mean) / self.std


class RobustModel(nn.Module):
    """``head(backbone(upsample(normalize(x))))``, which is what ships, plus named branches through the same backbone.

    Most models enlarge nothing.

    The backbone never learns that branches exist: a branch hands ``functional_call`` the tensors that replace the
    backbone's own for one call. Training adds branches and removes them again.

    Args:
        normalize: Pixel range [0, 1] to what the backbone expects.
        backbone: Normalised images (N, C, H, W) to features (N, D).
        head: Features (N, D) to logits (N, K).
        architecture: How timm builds backbone and head again, and how images are enlarged for it.
    """

    def __init__(self, normalize: Normalize, backbone: nn.Module, head: nn.Linear, architecture: Architecture) -> None:
        super().__init__()
        self.normalize = normalize
        self.upsample = nn.Identity() if architecture.upsampling is None else Upsample(architecture.upsampling)
        self.backbone = backbone
        self.head = head
        self.branches = nn.ModuleDict()
        self.architecture = architecture
        self._features: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to logits (N, K) on the robust path, which no branch touches."""
        features = self._features or self.backbone
        return self.head(features(self.prepared(x)))

    def prepared(self, x: Tensor) -> Tensor:
        """Return what the backbone sees of images (N, C, H, W) in [0, 1]: normalised, and enlarged if need be."""
        return self.upsample(self.normalize(x))

    def description(self) -> dict[str, Any]:
        """Return architecture, sizes of images and of what the backbone sees, and parameters, for JSON."""
        backbone, head = (sum(p.numel() for p in part.parameters()) for part in (self.backbone, self.head))
        return {
            "architecture": self.architecture.name,
            "input_size": list(self.architecture.input_size),
            "network_size": list(self.architecture.network_size),
            "parameters": backbone + head,
            "backbone_parameters": backbone,
        }

    @contextmanager
    def running(self, features: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Compute the robust path with another form of the backbone, such as a folded one; branches are not touched.

        Args:
            features: Prepared images (N, C, H, W) to features (N, D), equal to the backbone's.
        """
        before = self._features
        # past nn.Module's own __setattr__, which would make a module that is lent a part of the model
        object.__setattr__(self, "_features", features)
        try:
            yield
        finally:
            object.__setattr__(self, "_features", before)

    def through(self, branch: str, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to logits (N, K) through a branch of the backbone.

        Raises:
            KeyError: If the model has no such branch.
        """
        way = self.branches[branch]
        assert isinstance(way, Branch)
        with way.mode(self.backbone):
            features = functional_call(self.backbone, way.tensors(self.backbone), (self.prepared(x),))
        return self.head(features)
