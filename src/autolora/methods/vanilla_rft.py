"""Vanilla robust fine-tuning: TRADES on a pre-trained backbone (Zhang et al., 2019; AutoLoRa, Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from autolora.attacks import Start
from autolora.errors import InputError
from autolora.losses import cross_entropy_each, kl_each, kl_from
from autolora.methods.base import Batch, Losses, Method, Pair, register
from autolora.models import RobustModel


@register("vanilla-rft")
@dataclass
class VanillaRFT(Method):
    r"""Natural accuracy, and predictions that stay the same under attack, through one network (TRADES).

    .. math:: CE(f_\theta(x), y) + \beta \, KL(f_\theta(x) \| f_\theta(x'))

    (AutoLoRa's Eq. 1.) The adversarial batch goes first, as in the released baseline: batch norm's running statistics
    see it before the natural one.

    Args:
        pgd: The attack.
        beta: Weight of the consistency term; 6 everywhere.
        attack_loss: What the attack climbs: ``"ce"``, as the papers' robust fine-tuning does, or ``"kl"`` to the
            natural predictions, as TRADES and the RobustSSL benchmark do.
        start: Where the attack starts; by default uniform for ``"ce"``, gaussian for ``"kl"``, whose gradient
            is zero at the natural image.

    Raises:
        InputError: If ``beta`` is negative, or ``attack_loss`` unknown.
    """

    paper = "Zhang et al., ICML 2019; Eq. 1 of Xu et al., ICLR 2024"
    passes_of_loss = 4

    beta: float = 6.0
    attack_loss: Literal["ce", "kl"] = "ce"
    start: Start | None = None

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise InputError(f"beta={self.beta}: a loss weight is 0 or more; the papers take 6")
        if self.attack_loss not in ("ce", "kl"):
            raise InputError(f"attack_loss={self.attack_loss!r} is unknown; use ce or kl")
        start = self.start or ("uniform" if self.attack_loss == "ce" else "gaussian")
        self.pgd = replace(self.pgd, start=start)

    def attack(self, model: RobustModel, x: Tensor, y: Tensor) -> Tensor:
        """Climb the cross entropy, or the divergence from the natural predictions."""
        if self.attack_loss == "ce":
            return self.pgd(model, x, y)
        with torch.no_grad():
            natural = model(x)
        return self.pgd(model, x, natural, kl_each)

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        """Return both terms of Eq. 1, adversarial pass first."""
        adversarial, natural = model(batch.x_adv).float(), model(batch.x).float()
        return {
            "natural": F.cross_entropy(natural, batch.y),
            "consistency": self.beta * kl_from(natural, adversarial),
        }

    def objectives(self, model: RobustModel, batch: Batch) -> dict[str, Pair]:
        """Add AutoLoRa's Eq. 3: the natural against the adversarial objective, through one network."""
        natural, adversarial = model(batch.x), model(batch.x_adv)
        own = (cross_entropy_each(natural, batch.y), kl_each(adversarial, natural))
        return super().objectives(model, batch) | {"eq3": own}
