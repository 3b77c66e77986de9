"""Parameter counts of low-rank branches, and the three ratios that papers print of them.

Counted from the shapes of the layers alone: a model on torch's meta device, which holds no numbers, is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autolora.models.backbones import build_model
from autolora.models.branches import AFFINE_NORMS
from autolora.models.lowrank import Pairs, Style
from autolora.models.robust import RobustModel
from autolora.models.targets import Targets

__all__ = ["PAPER_TARGETS", "ParameterCounts", "build_on_meta", "count_parameters"]

PAPER_TARGETS: dict[str, Targets] = {"loralib": "blocks", "peft": "all"}
"""The layers that carry an update in the paper behind each style: AutoLoRa leaves out the stem, LoFT does not."""


@dataclass(frozen=True)
class ParameterCounts:
    r"""The parameters of a model and of a low-rank branch beside it.

    With L for ``lora_params``, F for ``fe_params``, T for ``total_params`` and N for ``bn_params`` the ratios are

    .. math:: 100 \frac{L}{F}, \qquad 100 \frac{L}{F + L}, \qquad 100 \frac{L + N + (T - F)}{T}

    Args:
        lora_params: Entries of all pairs A and B.
        fe_params: Parameters of the feature extractor: the model without its head.
        total_params: Parameters of the feature extractor and the head, without the pairs.
        bn_params: Affine parameters of the norms whose name in the feature extractor contains "bn".
        lora_over_fe_percent: The pairs over the feature extractor.
        lora_over_total_percent: Trainable over all parameters as PEFT prints it, of the feature extractor with its
            pairs: the head is trained apart, and not counted (LoFT, table IV).
        table4_percent: The counting that gives the ratios in table 4 of AutoLoRa: the numerator holds the head and
            the norms named "bn" too, the denominator all of the model without the pairs.
    """

    lora_params: int
    fe_params: int
    total_params: int
    bn_params: int
    lora_over_fe_percent: float
    lora_over_total_percent: float
    table4_percent: float


def build_on_meta(name: str, *, classes: int, image_size: int | None = None) -> RobustModel:
    """Build a model of shapes alone, on torch's meta device: no weights are read, fetched or allocated.

    Args:
        name: ``"packaged"``, a timm name, or a folder that holds a model in timm's format, such as a finished run.
        classes: Classes K of the head.
        image_size: Side of the square input in pixels; None takes the model's own.

    Raises:
        InputError: If the name is unknown, or the model cannot take images of that size.
    """
    with torch.device("meta"):
        return build_model(name, classes=classes, weights="none", image_size=image_size)


def count_parameters(
    model: RobustModel, rank: int = 8, style: Style = "loralib", targets: Targets | None = None
) -> ParameterCounts:
    """Count a low-rank branch against the model that would carry it; nothing is allocated.

    Args:
        model: Feature extractor and head; it may lie on the meta device. Branches that it has are not counted.
        rank: r of every pair, at least 1.
        style: ``"loralib"`` (AutoLoRa) or ``"peft"`` (LoFT); see ``models.lowrank``.
        targets: The adapted layers, see ``adapted_layers``; None takes those of the style's paper.

    Raises:
        InputError: If the rank is below 1, there is no such style or layer, or nothing to adapt.
    """
    chosen = PAPER_TARGETS.get(style, "blocks") if targets is None else targets
    lora = sum(Pairs(rank, style, chosen).sizes(model.backbone).values())
    extractor, head = _size(model.backbone.parameters()), _size(model.head.parameters())
    norms = _size(_parameters_named_bn(model.backbone))
    return ParameterCounts(
        lora_params=lora,
        fe_params=extractor,
        total_params=extractor + head,
        bn_params=norms,
        lora_over_fe_percent=100 * lora / extractor,
        lora_over_total_percent=100 * lora / (extractor + lora),
        table4_percent=100 * (lora + norms + head) / (extractor + head),
    )


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _parameters_named_bn(backbone: nn.Module) -> Iterator[Tensor]:
    """Give the affine parameters of the norms whose name contains "bn".

    Selecting by name is the paper's own convention, which this reproduces: in a ResNet it leaves out the norms of the
    down-sampling shortcuts, which have another name, and in a transformer it finds nothing.
    """
    for name, module in backbone.named_modules():
        if "bn" in name and isinstance(module, (_BatchNorm, *AFFINE_NORMS)):
            yield from module.parameters(recurse=False)
