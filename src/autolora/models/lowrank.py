"""Low-rank updates of convolutions and linear layers, in weight space: W + s BA (Hu et al., 2022, section 4.1).

Two parametrisations of a convolution are in use, and they are different sets of weights: ``loralib`` (AutoLoRa, after
Microsoft's loralib) and ``peft`` (LoFT, after Hugging Face PEFT). Every update computes a tensor of exactly the shape
of the layer's weight, so that merging is an addition.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.targets import Adaptable, Targets, adaptable, adapted_layers, check_targets

__all__ = ["UPDATES", "Init", "LoralibUpdate", "LowRankUpdate", "Pairs", "PeftUpdate", "Style"]

Style = Literal["loralib", "peft"]
Init = Literal["normal", "kaiming"]
Shape = tuple[int, ...]
MOST = 10  # entries of all pairs over those of the weights that they update: more is a slip, and memory runs out


@dataclass(frozen=True)
class Pairs:
    """How the pairs (A, B) of a backbone are made: of which layers, of which form, and how they start.

    Args:
        rank: r of every pair, at least 1.
        style: Form of the updates, ``"loralib"`` (AutoLoRa) or ``"peft"`` (LoFT).
        targets: The layers, see :func:`autolora.models.targets.adapted_layers`.
        lora_alpha: alpha, positive; 1 in AutoLoRa, whose scale at rank 8 is therefore 0.125.
        init: ``"normal"`` draws A from N(0, sigma^2), as AutoLoRa says and its release does with sigma 1;
            ``"kaiming"`` is the uniform distribution that loralib and PEFT draw from by default.
        sigma: Standard deviation for ``"normal"``, positive.

    Raises:
        InputError: If the rank is below 1, a scale not positive and finite, or a choice unknown.
    """

    rank: int = 8
    style: Style = "loralib"
    targets: Targets = "blocks"
    lora_alpha: float = 1.0
    init: Init = "normal"
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"rank={self.rank}: a pair has rank 1 or more; the paper takes 8")
        if self.style not in get_args(Style):
            raise InputError(f"style={self.style!r} is not known; use {' or '.join(get_args(Style))}")
        check_targets(self.targets)
        if not (0 < self.lora_alpha < math.inf and 0 < self.sigma < math.inf):
            # both factors at zero would have zero gradients, and never move
            given = f"lora_alpha={self.lora_alpha} and sigma={self.sigma}"
            raise InputError(f"{given} must be positive; AutoLoRa uses 1 for both")
        if self.init not in get_args(Init):
            raise InputError(f"init={self.init!r} is not known; use {' or '.join(get_args(Init))}")

    def sizes(self, backbone: nn.Module) -> dict[str, int]:
        """Return the number of entries of A and B together, per adapted layer; nothing is allocated.

        Raises:
            InputError: If the targets name no layer, or the style has no form for one.
        """
        layers, update = adaptable(backbone), UPDATES[self.style]
        chosen = adapted_layers(backbone, self.targets)
        return {name: sum(math.prod(shape) for shape in update.shapes(layers[name], self.rank)) for name in chosen}

    def update(self, layer: Adaptable) -> LowRankUpdate:
        """Build the update of one layer, whether or not it is among the targets.

        Raises:
            InputError: If the style has no form for it.
        """
        return UPDATES[self.style](layer, self)

    def updates(self, backbone: nn.Module) -> dict[str, LowRankUpdate]:
        """Build the updates of a backbone's chosen layers, by name and in its order; it is not changed.

        Raises:
            InputError: As :meth:`sizes`, and if the pairs are far larger than what they update.
        """
        sizes, layers = self.sizes(backbone), adaptable(backbone)
        chosen, entries = {name: layers[name] for name in sizes}, sum(sizes.values())
        weights = [layer.weight for layer in chosen.values()]
        if entries > MOST * sum(weight.numel() for weight in weights):
            full = max(min(weight.flatten(1).shape) for weight in weights)
            raise InputError(
                f"rank={self.rank} makes pairs of {entries:.2g} numbers, more than {MOST} times the weights that they "
                f"update, and no update of {type(backbone).__name__} has a rank above {full}; the papers use 2 to 16"
            )
        return {name: self.update(layer) for name, layer in chosen.items()}


class LowRankUpdate(nn.Module, ABC):
    r"""The pair (A, B) of one layer. Calling it returns :math:`\frac{\alpha}{r} BA`, shaped like the layer's weight.

    B starts at zero, so the update does too.

    Args:
        layer: A ``nn.Conv2d`` or ``nn.Linear``; its weight gives shape, dtype and device, and is not kept.
        pairs: Rank, alpha and start; its style is that of the class, and its targets are not looked at.

    Raises:
        InputError: If the style has no form for this layer.
    """

    def __init__(self, layer: Adaptable, pairs: Pairs) -> None:
        super().__init__()
        shape_a, shape_b = self.shapes(layer, pairs.rank)
        self.rank, self.scale = pairs.rank, pairs.lora_alpha / pairs.rank
        self.groups, self.shape = getattr(layer, "groups", 1), tuple(layer.weight.shape)
        self.lora_A = nn.Parameter(layer.weight.new_empty(shape_a))
        self.lora_B = nn.Parameter(layer.weight.new_zeros(shape_b))
        if pairs.init == "normal":
            nn.init.normal_(self.lora_A, std=pairs.sigma)
        else:
            nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    @classmethod
    @abstractmethod
    def shapes(cls, layer: Adaptable, rank: int) -> tuple[Shape, Shape]:
        """Return the shapes of A and B for a layer."""

    @abstractmethod
    def forward(self) -> Tensor:
        """Return the update, shaped like the layer's weight."""

    def extra_repr(self) -> str:
        """Say what the update is for, as ``print(module)`` shows it."""
        return f"{self.shape}, rank={self.rank}, scale={self.scale:g}"


class LoralibUpdate(LowRankUpdate):
    r"""The form of AutoLoRa's release: one matrix product, read row by row as the weight.

    For a k x k convolution with g groups, A is (r k, in k) and B is (out k / g, r k). A need not be divided by g: the
    product has out k / g times in k entries, as many as the weight (out, in / g, k, k). For k = 3 it is a matrix of
    rank up to 3 r, and no 3x3 convolution followed by a 1x1 one. Linear: A is (r, in) and B is (out, r).
    """

    @classmethod
    def shapes(cls, layer: Adaptable, rank: int) -> tuple[Shape, Shape]:
        """Return the shapes of A and B for a layer.

        Raises:
            InputError: If the kernel is not square.
        """
        if isinstance(layer, nn.Linear):
            return (rank, layer.in_features), (layer.out_features, rank)
        k, width = layer.kernel_size
        if k != width:
            raise InputError(
                f"{layer} has a {k}x{width} kernel and loralib's form needs a square one; use style='peft'"
            )
        return (rank * k, layer.in_channels * k), (layer.out_channels // layer.groups * k, rank * k)

    def forward(self) -> Tensor:
        """Return the update, shaped like the layer's weight."""
        return self.scale * (self.lora_B @ self.lora_A).view(self.shape)


class PeftUpdate(LowRankUpdate):
    r"""The form of PEFT: a convolution to r channels like the layer's own, then a 1x1 one, merged exactly.

    .. math:: \Delta W_{o,i,h,w} = \frac{\alpha}{r} \sum_\rho B_{o,\rho} A_{\rho,i,h,w}

    A is (r, in, k_h, k_w) and B is (out, r, 1, 1). With g groups every group has its own pair: A is (g r, in / g, k_h,
    k_w) and B is (out, r, 1, 1). This differs from PEFT, whose first convolution mixes the groups, so that it cannot
    be merged into a grouped weight. Linear: A is (r, in) and B is (out, r).
    """

    @classmethod
    def shapes(cls, layer: Adaptable, rank: int) -> tuple[Shape, Shape]:
        """Return the shapes of A and B for a layer."""
        if isinstance(layer, nn.Linear):
            return (rank, layer.in_features), (layer.out_features, rank)
        a = (layer.groups * rank, layer.in_channels // layer.groups, *layer.kernel_size)
        return a, (layer.out_channels, rank, 1, 1)

    def forward(self) -> Tensor:
        """Return the update, shaped like the layer's weight."""
        a, b = self.lora_A.view(self.groups, self.rank, -1), self.lora_B.view(self.groups, -1, self.rank)
        return self.scale * (b @ a).view(self.shape)


UPDATES: dict[str, type[LowRankUpdate]] = {"loralib": LoralibUpdate, "peft": PeftUpdate}
"""The parametrisations by name."""
