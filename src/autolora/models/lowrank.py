"""Low-rank updates of convolutions and linear layers, in weight space: W + s BA (Hu et al., 2022, section 4.1).

Two parametrisations of a convolution are in use, and they are different sets of weights: ``loralib`` (AutoLoRa, after
Microsoft's loralib) and ``peft`` (LoFT, after Hugging Face PEFT). Every update computes a tensor of exactly the shape
of the layer's weight, so that merging is an addition.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, get_args

from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.targets import Adaptable, Targets, adaptable, adapted_layers, check_targets

__all__ = [
    "UPDATES",
    "LoralibUpdate",
    "LowRankUpdate",
    "PeftUpdate",
    "build_update",
    "build_updates",
    "check_pairs",
    "lowrank_sizes",
]

Style = Literal["loralib", "peft"]
Init = Literal["normal", "kaiming"]
Shape = tuple[int, ...]
MOST = 10  # entries of all pairs over those of the weights that they update: more is a slip, and memory runs out


class LowRankUpdate(nn.Module, ABC):
    r"""The pair (A, B) of one layer. Calling it returns :math:`\frac{\alpha}{r} BA`, shaped like the layer's weight.

    B starts at zero, so the update does too.

    Args:
        layer: A ``nn.Conv2d`` or ``nn.Linear``; its weight gives shape, dtype and device, and is not kept.
        rank: r, at least 1.
        lora_alpha: alpha, positive; 1 in AutoLoRa, whose scale at rank 8 is therefore 0.125.
        init: ``"normal"`` draws A from N(0, sigma^2), as AutoLoRa says and its release does with sigma 1;
            ``"kaiming"`` is the uniform distribution that loralib and PEFT draw from by default.
        sigma: Standard deviation for ``"normal"``, positive.

    Raises:
        InputError: If an argument is out of range, or the style has no form for this layer.
    """

    def __init__(
        self, layer: Adaptable, rank: int = 8, lora_alpha: float = 1.0, init: Init = "normal", sigma: float = 1.0
    ) -> None:
        super().__init__()
        check_pairs(rank=rank, lora_alpha=lora_alpha, init=init, sigma=sigma)
        shape_a, shape_b = self.shapes(layer, rank)
        self.rank, self.scale = rank, lora_alpha / rank
        self.groups, self.shape = getattr(layer, "groups", 1), tuple(layer.weight.shape)
        self.lora_A = nn.Parameter(layer.weight.new_empty(shape_a))
        self.lora_B = nn.Parameter(layer.weight.new_empty(shape_b))
        self.reset_parameters(init, sigma)

    @classmethod
    @abstractmethod
    def shapes(cls, layer: Adaptable, rank: int) -> tuple[Shape, Shape]:
        """Return the shapes of A and B for a layer."""

    @abstractmethod
    def forward(self) -> Tensor:
        """Return the update, shaped like the layer's weight."""

    def reset_parameters(self, init: Init = "normal", sigma: float = 1.0) -> None:
        """Draw A anew and set B to zero; the arguments are the constructor's.

        Raises:
            InputError: If there is no such distribution, or ``sigma`` is not positive.
        """
        check_pairs(init=init, sigma=sigma)
        if init == "normal":
            nn.init.normal_(self.lora_A, std=sigma)
        else:
            nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

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
            InputError: If the rank is below 1, or the kernel is not square.
        """
        check_pairs(rank=rank)
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
        """Return the shapes of A and B for a layer.

        Raises:
            InputError: If the rank is below 1.
        """
        check_pairs(rank=rank)
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


def check_pairs(
    *,
    rank: int = 8,
    style: str = "loralib",
    targets: Targets = "blocks",
    lora_alpha: float = 1.0,
    init: str = "normal",
    sigma: float = 1.0,
) -> None:
    """Refuse what no pairs can be made of, before there is a network to make them for.

    Raises:
        InputError: If the rank is below 1, a scale not positive and finite, or a choice unknown.
    """
    if rank < 1:
        raise InputError(f"rank={rank} leaves no update to train; use 1 or more, such as 8")
    if style not in UPDATES:
        raise InputError(f"style={style!r} is not known; use {' or '.join(UPDATES)}")
    check_targets(targets)
    if not (0 < lora_alpha < math.inf and 0 < sigma < math.inf):
        # both factors at zero would have zero gradients, and never move
        raise InputError(f"lora_alpha={lora_alpha} and sigma={sigma} must be positive; AutoLoRa uses 1 for both")
    if init not in get_args(Init):
        raise InputError(f"init={init!r} is not known; use {' or '.join(get_args(Init))}")


def build_update(
    layer: Adaptable,
    rank: int = 8,
    style: Style = "loralib",
    lora_alpha: float = 1.0,
    init: Init = "normal",
    sigma: float = 1.0,
) -> LowRankUpdate:
    """Build the update of one layer; see ``LowRankUpdate`` for the arguments.

    Raises:
        InputError: If there is no such style, or the update refuses its arguments.
    """
    return _style(style)(layer, rank, lora_alpha, init, sigma)


def build_updates(
    backbone: nn.Module,
    rank: int = 8,
    style: Style = "loralib",
    targets: Targets = "blocks",
    lora_alpha: float = 1.0,
    init: Init = "normal",
    sigma: float = 1.0,
) -> dict[str, LowRankUpdate]:
    """Build the updates of a backbone's chosen layers, by name and in its order; it is not changed.

    Args:
        backbone: A network.
        rank: r of every pair.
        style: ``"loralib"`` or ``"peft"``.
        targets: The layers, see :func:`autolora.models.targets.adapted_layers`.
        lora_alpha: As ``LowRankUpdate`` takes it, and so the others.
        init: Distribution of A.
        sigma: Standard deviation of A for ``"normal"``.

    Raises:
        InputError: If an argument is out of range or names no layer, or the pairs are far larger than what they update.
    """
    sizes, layers = lowrank_sizes(backbone, rank, style, targets), adaptable(backbone)
    chosen, entries = {name: layers[name] for name in sizes}, sum(sizes.values())
    weights = [layer.weight for layer in chosen.values()]
    if entries > MOST * sum(weight.numel() for weight in weights):
        full = max(min(weight.flatten(1).shape) for weight in weights)
        raise InputError(
            f"rank={rank} makes pairs of {entries:.2g} numbers, more than {MOST} times the weights that they "
            f"update, and no update of {type(backbone).__name__} has a rank above {full}; the papers use 2 to 16"
        )
    return {name: build_update(layer, rank, style, lora_alpha, init, sigma) for name, layer in chosen.items()}


def lowrank_sizes(
    backbone: nn.Module, rank: int = 8, style: Style = "loralib", targets: Targets = "blocks"
) -> dict[str, int]:
    """Return the number of entries of A and B together, per adapted layer; nothing is allocated."""
    layers, update = adaptable(backbone), _style(style)
    chosen = adapted_layers(backbone, targets)
    return {name: sum(math.prod(shape) for shape in update.shapes(layers[name], rank)) for name in chosen}


def _style(name: str) -> type[LowRankUpdate]:
    check_pairs(style=name)
    return UPDATES[name]
