"""Adversarial training (Madry et al., 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from autolora.methods.base import Batch, Losses, Method, register
from autolora.models import RobustModel


@register("at")
@dataclass
class AT(Method):
    r"""Adversarial training of all weights on adversarial images alone.

    .. math:: \min_\theta \max_{x' \in S(x)} CE(f_\theta(x'), y)
    """

    paper = "Madry et al., ICLR 2018"
    passes_of_loss = 2

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        """Return the cross entropy on adversarial images: one forward pass in training mode."""
        return {"adversarial": F.cross_entropy(model(batch.x_adv).float(), batch.y)}
