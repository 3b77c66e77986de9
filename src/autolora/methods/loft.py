"""LoFT: adversarial training of low-rank adapters on a frozen backbone (Fu et al., 2024)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from autolora.errors import InputError
from autolora.losses import kl_from
from autolora.methods.base import Batch, Losses, Method, register
from autolora.models import RobustModel
from autolora.models.adapters import extract
from autolora.models.lowrank import Init, LowRankUpdate, Pairs, Style
from autolora.models.peft_format import peft_obstacle
from autolora.models.targets import Targets

logger = logging.getLogger(__name__)


class Adapted(nn.Module):
    """A weight re-expressed as W + s BA, with W frozen; torch's ``parametrize`` computes it where the layer uses it."""

    def __init__(self, update: LowRankUpdate) -> None:
        super().__init__()
        self.update = update

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight, shaped like the weight."""
        return weight + self.update()


@register("loft")
@dataclass
class LoFT(Method):
    r"""Adversarial training of low-rank pairs on every layer of a frozen backbone, and of the head.

    .. math:: u \, CE(f_{\theta + BA}(x), y) + v \, KL(f_{\theta + BA}(x) \| f_{\theta + BA}(x'))

    (Eq. 1 and 3.) Natural and adversarial images both go through the adapted weights, and so does the attack. There is
    one way through the model for the whole run, so the weights are re-expressed rather than a branch added; in the end
    the update is merged exactly into them.

    Args:
        pgd: The attack, on the adapted model.
        rank: Rank r; 8 in the paper.
        u: Weight of the natural term; the paper does not print it, 1 is that of TRADES.
        v: Weight of the consistency term; the paper does not print it, 6 is that of TRADES.
        targets: Adapted layers; ``"all"`` (stem and shortcuts too) gives the paper's parameter counts.
        style: Form of the update; ``"peft"`` gives the paper's parameter counts.
        init: Distribution of A; B starts at zero.
        sigma: Standard deviation of A for ``"normal"``; the paper does not print it.
        lora_alpha: The update is (lora_alpha / rank) BA; the paper does not print it.
        norms: ``"train"``: batch norm's running statistics follow the data, as a frozen backbone in training mode
            does; ``"frozen"``: they stay as pre-trained. The affine parameters are frozen either way.

    Raises:
        InputError: If a loss weight is negative, ``rank`` below 1, ``sigma`` or ``lora_alpha`` not positive, or a
            choice unknown.
    """

    paper = "Fu et al., 2024"
    keeps_adapter = True
    passes_of_loss = 4

    rank: int = 8
    u: float = 1.0
    v: float = 6.0
    targets: Targets = "all"
    style: Style = "peft"
    init: Init = "kaiming"
    sigma: float = 1.0
    lora_alpha: float = 8.0
    norms: Literal["train", "frozen"] = "train"
    adapted: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if min(self.u, self.v) < 0:
            raise InputError(f"u={self.u}, v={self.v}: a loss weight is 0 or more; TRADES takes 1 and 6")
        if self.norms not in ("train", "frozen"):
            raise InputError(f"norms={self.norms!r} is unknown; use train or frozen")
        self._pairs = Pairs(self.rank, self.style, self.targets, self.lora_alpha, self.init, self.sigma)

    def prepare(self, model: RobustModel) -> None:
        """Freeze the backbone and re-express the adapted weights."""
        backbone = model.backbone.requires_grad_(False)
        updates = self._pairs.updates(backbone)
        self.adapted = tuple(updates)
        if (obstacle := peft_obstacle(model, updates)) is not None:
            logger.info(f"this run will have a model but no adapter, since PEFT {obstacle}")
        for name, update in updates.items():
            parametrize.register_parametrization(_layer(model, name), "weight", Adapted(update))

    def begin_training(self, model: RobustModel) -> None:
        """Train, with the backbone's statistics fixed if asked for."""
        model.train()
        if self.norms == "frozen":
            model.backbone.eval()

    def attack(self, model: RobustModel, x: Tensor, y: Tensor) -> Tensor:
        """Attack the adapted model; its weights are computed once for all steps."""
        with parametrize.cached():
            return self.pgd(model, x, y)

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        """Return both terms, natural pass first."""
        with parametrize.cached():
            natural, adversarial = model(batch.x).float(), model(batch.x_adv).float()
        return {
            "natural": self.u * F.cross_entropy(natural, batch.y),
            "consistency": self.v * kl_from(natural, adversarial),
        }

    def finalize(self, model: RobustModel) -> None:
        """Keep the adapter if PEFT has a form for it, merge the updates, and let the backbone train again."""
        super().finalize(model)
        updates = {name: _taken(_layer(model, name)) for name in self.adapted}
        if peft_obstacle(model, updates) is None:
            self.adapter = extract(model, updates, self.lora_alpha)
        with torch.no_grad():
            for name, update in updates.items():
                _layer(model, name).weight += update()
        model.backbone.requires_grad_(True)


def _layer(model: RobustModel, name: str) -> nn.Conv2d | nn.Linear:
    layer = model.backbone.get_submodule(name)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return layer


def _taken(layer: nn.Conv2d | nn.Linear) -> LowRankUpdate:
    """Take the update off a layer, which has its own weight again."""
    parametrizations = layer.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    steps = parametrizations["weight"]
    assert isinstance(steps, nn.ModuleList) and isinstance(steps[0], Adapted)
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    return steps[0].update
