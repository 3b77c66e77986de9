"""TWINS: two networks that share their weights and differ in batch norm (Liu et al., CVPR 2023)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from autolora.errors import InputError
from autolora.losses import cross_entropy_each, kl_each, kl_from
from autolora.methods.base import Batch, Losses, Method, Pair, register
from autolora.models import FrozenNormBranch, RobustModel

FROZEN = "frozen"


@dataclass
class Twins(Method):
    """What both variants share: the frozen net, and which images go through which net.

    The adaptive net is the model itself. The frozen net normalises with the statistics of pre-training, also while it
    trains; its affine parameters are copies that learn, as in the authors' code. Only the adaptive net is attacked,
    and only it ships.

    Args:
        pgd: The attack on the adaptive net.
        weight_frozen: Weight of the frozen net's loss: lambda of the authors' code.
        weight_adaptive: Weight of the adaptive net's loss: gamma of AutoLoRa's Eq. 2.
        routing: ``"halves"``: the first half of a batch goes through the frozen net, the rest through the adaptive
            one, as in the authors' code. ``"eq2"``: both nets see the whole batch, as AutoLoRa's Eq. 2 is written, at
            twice the cost.

    Raises:
        InputError: If a weight is negative, or ``routing`` unknown.
    """

    paper = "Liu et al., CVPR 2023"

    weight_frozen: float = 1.0
    weight_adaptive: float = 1.0
    routing: Literal["halves", "eq2"] = "halves"

    def __post_init__(self) -> None:
        if min(self.weight_frozen, self.weight_adaptive) < 0:
            raise InputError(f"weights {self.weight_frozen} and {self.weight_adaptive}: a loss weight is 0 or more")
        if self.routing not in ("halves", "eq2"):
            raise InputError(f"routing={self.routing!r} is unknown; use halves (as released) or eq2")

    @property
    def fewest(self) -> int:
        """Return how many images a batch has at least: two for each net."""
        return 4 if self.routing == "halves" else 2

    def prepare(self, model: RobustModel) -> None:
        """Add the frozen net."""
        model.branches[FROZEN] = FrozenNormBranch(model.backbone)

    def route(self, batch: Batch) -> tuple[Batch, Batch]:
        """Return what the frozen and what the adaptive net see; of an odd batch the adaptive net gets the middle."""
        if self.routing == "eq2":
            return batch, batch
        half = len(batch.y) // 2
        return Batch(*(tensor[:half] for tensor in batch)), Batch(*(tensor[half:] for tensor in batch))

    @abstractmethod
    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        """Return the terms of the loss, by net."""

    def objectives(self, model: RobustModel, batch: Batch) -> dict[str, Pair]:
        """Add AutoLoRa's Eq. 4: the natural against the adversarial objective, each summed over both nets.

        As printed, both cross entropies are of the adaptive net; by Eq. 2 the first is of the frozen one, as here.
        Both nets see every image, unlike in training.
        """
        frozen, adaptive = model.through(FROZEN, batch.x), model(batch.x)
        frozen_adv, adaptive_adv = model.through(FROZEN, batch.x_adv), model(batch.x_adv)
        natural = self.weight_frozen * cross_entropy_each(frozen, batch.y)
        adversarial = self.weight_frozen * kl_each(frozen_adv, frozen)
        natural = natural + self.weight_adaptive * cross_entropy_each(adaptive, batch.y)
        adversarial = adversarial + self.weight_adaptive * kl_each(adaptive_adv, adaptive)
        return super().objectives(model, batch) | {"eq4": (natural, adversarial)}


@register("twins-at")
@dataclass
class TwinsAT(Twins):
    r"""Two nets with shared weights, one with frozen and one with adaptive batch norm, trained on adversarial images.

    .. math:: w_{frozen} CE(\bar f(x'_1), y_1) + w_{adaptive} CE(f(x'_2), y_2)
    """

    passes_of_loss = 2  # each image goes through one of the two nets

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        """Return the cross entropy of each net."""
        first, second = self.route(batch)
        frozen, adaptive = model.through(FROZEN, first.x_adv).float(), model(second.x_adv).float()
        return {
            "frozen": self.weight_frozen * F.cross_entropy(frozen, first.y),
            "adaptive": self.weight_adaptive * F.cross_entropy(adaptive, second.y),
        }


@register("twins-trades")
@dataclass
class TwinsTRADES(Twins):
    r"""Two nets with shared weights, one with frozen and one with adaptive batch norm, each trained with TRADES.

    .. math:: w_{frozen} [CE(\bar f(x_1), y_1) + \beta' KL(\bar f(x_1) \| \bar f(x'_1))]
              + w_{adaptive} [CE(f(x_2), y_2) + \beta' KL(f(x_2) \| f(x'_2))]

    In the authors' code cross entropies are means over half a batch and divergences are divided by the whole one, so
    that :math:`\beta' = \beta / 2`; with ``routing="eq2"`` it is :math:`\beta`. What AutoLoRa's paper calls TWINS.

    Args:
        beta: Weight of the consistency terms; 6 everywhere.
    """

    passes_of_loss = 4

    beta: float = 6.0

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        """Return both terms of each net, adversarial passes first."""
        first, second = self.route(batch)
        frozen_adv, adaptive_adv = model.through(FROZEN, first.x_adv).float(), model(second.x_adv).float()
        frozen, adaptive = model.through(FROZEN, first.x).float(), model(second.x).float()
        return {
            "frozen-natural": self.weight_frozen * F.cross_entropy(frozen, first.y),
            "adaptive-natural": self.weight_adaptive * F.cross_entropy(adaptive, second.y),
            "frozen-consistency": self.weight_frozen * self._consistency(frozen, frozen_adv, batch.y),
            "adaptive-consistency": self.weight_adaptive * self._consistency(adaptive, adaptive_adv, batch.y),
        }

    def _consistency(self, natural: Tensor, adversarial: Tensor, y: Tensor) -> Tensor:
        return self.beta * kl_from(natural, adversarial) * (len(natural) / len(y))
