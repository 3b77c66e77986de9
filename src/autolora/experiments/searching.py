"""The forms of a model that attacks search: the same function with fewer operations, and once more in low precision.

A search asks for thousands of gradients, and of each only the direction counts. What it finds is shown to the model
itself, in full precision, before it counts (``attacks.victim``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autolora.attacks import Forward
from autolora.attacks.climbing import stretched
from autolora.attacks.victim import Victim
from autolora.models import RobustModel
from autolora.models.folding import Folding
from autolora.training.precision import autocast_for, resolve_precision


def victim_of(model: RobustModel, precision: str = "auto") -> Victim:
    """Return the model with its forms for searching.

    Args:
        model: In evaluation mode; its weights must not change afterwards.
        precision: In which gradients are computed: ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        InputError: If the precision is not there on the model's device.
    """
    precision = resolve_precision(precision, next(model.parameters()).device)
    return Victim(model, form(model), form(model, precision) if precision != "fp32" else None)


def form(model: RobustModel, precision: str = "fp32") -> Forward:
    """Return images (N, C, H, W) in [0, 1] to logits (N, K) in float32, with batch norm folded into the convolutions.

    Only the backbone computes in low precision: rounded logits would hide the differences that an attack climbs, and
    the head costs nothing. In fp16, gradients by the image have the direction of the function's, and another length.
    """
    device = next(model.parameters()).device
    autocast = autocast_for(precision, device)
    with autocast():
        features = Folding(model.backbone).network(model.backbone)

    def logits(x: Tensor) -> Tensor:
        with autocast():
            found = features(model.prepared(x))
        with torch.autocast(device.type, enabled=False):
            found = found.float()
            return model.head(_Stretched.apply(found) if precision == "fp16" else found)

    return logits


class _Stretched(torch.autograd.Function):
    """The same features (N, D), whose gradients survive fp16; see :func:`autolora.attacks.climbing.gain_of`."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return stretched(slope)
