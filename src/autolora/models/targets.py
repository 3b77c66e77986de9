"""Which layers of a backbone get a low-rank update: by where they stand in the network, or by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Literal, get_args

from torch import nn

from autolora.errors import InputError

__all__ = ["Adaptable", "Targets", "adaptable", "adapted_layers", "check_targets"]

Choice = Literal["blocks", "all", "last-block"]
Targets = Choice | Sequence[str]
Adaptable = nn.Conv2d | nn.Linear
CHOICES: tuple[str, ...] = get_args(Choice)


def check_targets(targets: Targets | str) -> None:
    """Refuse a word that chooses no layers in any backbone.

    Raises:
        InputError: If there is no such choice.
    """
    if isinstance(targets, str) and targets not in CHOICES:
        raise InputError(f"targets={targets!r} is not known; use {', '.join(CHOICES)} or a list of layer names")


def adaptable(backbone: nn.Module) -> dict[str, Adaptable]:
    """Return the convolutions and linear layers of a backbone by name, in its order."""
    return {name: module for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


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
    check_targets(targets)
    layers = adaptable(backbone)
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
