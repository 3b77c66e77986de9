"""Low-rank updates of convolutions and linear layers, in weight space: W + s BA (Hu et al., 2022, section 4.1).

Two parametrisations of a convolution are in use, and they are different sets of weights: ``loralib`` (AutoLoRa, after
Microsoft's loralib) and ``peft`` (LoFT, after Hugging Face PEFT). Every update computes a tensor of exactly the shape
of the layer's weight, so that merging is an addition.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Literal, get_args

from torch import Tensor, nn

from autolora.errors import InputError

__all__ = [
    "UPDATES",
    "LoralibUpdate",
    "LowRankUpdate",
    "PeftUpdate",
    "adapted_layers",
    "build_update",
    "check_pairs",
    "lowrank_sizes",
]

Style = Literal["loralib", "peft"]
Init = Literal["normal", "kaiming"]
Choice = Literal["blocks", "all", "last-block"]
Targets = Choice | Sequence[str]
CHOICES: tuple[str, ...] = get_args(Choice)
Adaptable = nn.Conv2d | nn.Linear
Shape = tuple[int, ...]


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
    if isinstance(targets, str) and targets not in CHOICES:
        raise InputError(f"targets={targets!r} is not known; use {', '.join(CHOICES)} or a list of layer names")
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


def lowrank_sizes(
    backbone: nn.Module, rank: int = 8, style: Style = "loralib", targets: Targets = "blocks"
) -> dict[str, int]:
    """Return the number of entries of A and B together, per adapted layer; nothing is allocated."""
    layers, update = dict(_adaptable(backbone)), _style(style)
    chosen = adapted_layers(backbone, targets)
    return {name: sum(math.prod(shape) for shape in update.shapes(layers[name], rank)) for name in chosen}


def adapted_layers(backbone: nn.Module, targets: Targets = "blocks") -> tuple[str, ...]:
    """Return the names of the layers that get an update, in the backbone's order.

    Args:
        backbone: A network; timm's ``pretrained_cfg`` tells which layers are stem and classifier.
        targets: ``"blocks"``: every convolution and linear layer but the stem (down-sampling shortcuts included: the
            intent of AutoLoRa, and its parameter counts). ``"all"``: the stem too (LoFT). ``"last-block"``: the
            convolutions of the last block of each stage, without its shortcut, a stage being an ``nn.Sequential`` of
            the backbone, or of the one that holds all stages (ConvNeXt, EfficientNet): the layers that AutoLoRa's
            high-resolution release reaches in a ResNet. Or the names themselves. The
            classifier, if the backbone still has one, belongs to none of the first three.

    Raises:
        InputError: If a name is unknown, the stem cannot be told, or nothing is left to adapt.
    """
    check_pairs(targets=targets)
    layers = dict(_adaptable(backbone))
    if not isinstance(targets, str):
        chosen = _named(layers, targets)
    elif targets == "last-block":
        chosen = _last_blocks(backbone)
    else:
        left_out = {*_configured(backbone, "classifier"), *(_stem(backbone, layers) if targets == "blocks" else ())}
        chosen = set(layers) - left_out
    if not chosen:
        raise InputError(f"targets={targets!r} selects no layer of {type(backbone).__name__}; give a list of names")
    return tuple(name for name in layers if name in chosen)


def _adaptable(backbone: nn.Module) -> list[tuple[str, Adaptable]]:
    return [(name, module) for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _named(layers: dict[str, Adaptable], names: Sequence[str]) -> set[str]:
    for name in names:
        if name not in layers:
            close = get_close_matches(name, layers, n=3) or list(layers)[:3]
            hint = f"did you mean {' or '.join(close)}?" if close else "the backbone has none"
            raise InputError(f"{name!r} is not a convolution or linear layer of the backbone; {hint}")
    return set(names)


def _stem(backbone: nn.Module, layers: dict[str, Adaptable]) -> set[str]:
    stem = _configured(backbone, "first_conv") & set(layers)
    if not stem:
        raise InputError(
            f"{type(backbone).__name__} does not say which layer is its stem (pretrained_cfg['first_conv'] of timm); "
            "give the layers to adapt as a list of names, or use targets='all'"
        )
    return stem


def _configured(backbone: nn.Module, key: str) -> set[str]:
    """Read an entry of timm's ``pretrained_cfg``: one name, several, or none."""
    config = getattr(backbone, "pretrained_cfg", None)
    names = (config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)) or ()
    return {names} if isinstance(names, str) else set(names)


def _last_blocks(backbone: nn.Module) -> set[str]:
    chosen: set[str] = set()
    for stage, blocks in _stages(backbone):
        block = blocks[-1]
        shortcut = getattr(block, "downsample", None)
        skipped = set(shortcut.modules()) if isinstance(shortcut, nn.Module) else set()
        for name, layer in block.named_modules(prefix=f"{stage}.{len(blocks) - 1}"):
            if isinstance(layer, nn.Conv2d) and layer is not block and layer not in skipped:
                chosen.add(name)
    return chosen


def _stages(backbone: nn.Module) -> Iterator[tuple[str, nn.Sequential]]:
    """Give the stages, each a sequence of blocks: children of the backbone, or of the one child that holds them all."""
    for name, child in backbone.named_children():
        if not isinstance(child, nn.Sequential) or not len(child):
            continue
        inner = [_blocks(f"{name}.{key}", part) for key, part in child.named_children()]
        stages = [found for found in inner if found is not None]
        yield from stages if len(stages) == len(inner) else [(name, child)]


def _blocks(name: str, part: nn.Module) -> tuple[str, nn.Sequential] | None:
    """Return the blocks of a module that is a stage, and their name."""
    for where, found in ((name, part), (f"{name}.blocks", getattr(part, "blocks", None))):
        if isinstance(found, nn.Sequential) and len(found):
            return where, found
    return None


def _style(name: str) -> type[LowRankUpdate]:
    check_pairs(style=name)
    return UPDATES[name]
