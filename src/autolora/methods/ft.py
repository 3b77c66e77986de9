"""Natural fine-tuning: what everyone does, and the control that shows what it does not give."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from autolora.methods.base import Batch, Losses, Method, register
from autolora.models import RobustModel


@register("ft")
@dataclass
class FT(Method):
    r"""Natural fine-tuning of all weights; no adversarial images.

    .. math:: \min_\theta CE(f_\theta(x), y)
    """

    paper = "the FT row of LoFT (Fu et al.), Table I"
    passes_of_loss = 2
    natural_only = True
    selects_on = "natural"  # robust selection would favour the first epochs, which still remember the backbone

    def attack(self, model: RobustModel, x: Tensor, y: Tensor) -> Tensor:
        """Return the natural images: nothing is attacked."""
        return x

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        """Return the cross entropy on natural images."""
        return {"natural": F.cross_entropy(model(batch.x).float(), batch.y)}
