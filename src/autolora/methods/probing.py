"""Linear probing of a frozen backbone, natural and adversarial: SLF and ALF of the RobustSSL protocol."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from autolora.methods.base import Batch, Losses, Method, register
from autolora.models import RobustModel


@dataclass
class LinearProbing(Method):
    """Train the head alone, from zero; backbone and batch statistics stay as they were pre-trained.

    The model is in evaluation mode throughout, also where the loss is computed. With a head of zeros the first attack
    has no gradient and gives noise in S(x), which does no harm.
    """

    paper = "RobustSSL benchmark; Luo et al., ICLR 2023"
    passes_of_loss = 1  # nothing of the backbone needs a gradient

    def prepare(self, model: RobustModel) -> None:
        """Freeze the backbone and set the head to zero."""
        model.backbone.requires_grad_(False)
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)

    def begin_training(self, model: RobustModel) -> None:
        """Stay in evaluation mode: no running statistic moves."""
        model.eval()

    def finalize(self, model: RobustModel) -> None:
        """Let the backbone train again."""
        super().finalize(model)
        model.backbone.requires_grad_(True)


@register("slf")
@dataclass
class SLF(LinearProbing):
    r"""Standard linear fine-tuning: the head alone, on natural images.

    .. math:: \min_{\theta_2} CE(g_{\theta_2}(f(x)), y)
    """

    natural_only = True
    selects_on = "natural"

    def attack(self, model: RobustModel, x: Tensor, y: Tensor) -> Tensor:
        """Return the natural images: nothing is attacked."""
        return x

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        """Return the cross entropy on natural images."""
        return {"natural": F.cross_entropy(model(batch.x).float(), batch.y)}


@register("alf")
@dataclass
class ALF(LinearProbing):
    r"""Adversarial linear fine-tuning: the head alone, on adversarial images.

    .. math:: \min_{\theta_2} \max_{x' \in S(x)} CE(g_{\theta_2}(f(x')), y)
    """

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        """Return the cross entropy on adversarial images."""
        return {"adversarial": F.cross_entropy(model(batch.x_adv).float(), batch.y)}
