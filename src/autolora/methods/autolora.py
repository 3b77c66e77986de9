"""AutoLoRa (Xu et al., ICLR 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from autolora.attacks import Start
from autolora.errors import InputError
from autolora.losses import cross_entropy_each, kl_each, kl_from
from autolora.methods.base import Accuracy, Batch, Losses, Method, Pair, register
from autolora.models import JoinedBranch, LowRankBranch, RobustModel
from autolora.models.branches import DualNormBranch, SparingNormBranch
from autolora.models.lowrank import Init, Pairs, Style
from autolora.models.targets import Targets

Statistics = Literal["shared", "adversarial-only", "dual"]
MeasuredOn = Literal["augmented", "clean", "epoch"]
SEEN = "natural_accuracy"  # of the branch on the batches of an epoch, as they were learnt from


@register("autolora")
@dataclass
class AutoLoRa(Method):
    r"""Natural data train a low-rank branch, adversarial data train the backbone, and the weights set themselves.

    .. math:: \lambda_1 CE(f_{W+BA}(x), y) + (1-\lambda_1) CE(f_W(x'), y) + \lambda_2 KL(f_{W+BA}(x) \| f_W(x'))

    (Eq. 5). On the natural branch every tensor of the backbone is stopped, so that natural data move only A, B and the
    head. Before each epoch the branch's natural accuracy SA on the training images, augmented as in training, sets

    .. math:: \lambda_1 = 1 - SA^\alpha, \qquad \lambda_2 = \lambda_2^{max} \, SA^\alpha

    (Eq. 6 and 7).

    Args:
        pgd: The attack on the backbone's own path.
        rank: Rank r of the branch.
        alpha: Sharpening exponent of Eq. 6 and 7; above 1, natural data keep their weight for longer.
        lambda2_max: Weight of the consistency term for a branch that is always right.
        targets: Layers that carry the branch: ``"blocks"`` (all but the stem, as the paper says), ``"all"``,
            ``"last-block"`` (as the released high-resolution code does), or their names.
        style: Form of the update, ``"loralib"`` (as released) or ``"peft"``.
        init: Distribution of A at the start, ``"normal"`` (as the paper says) or ``"kaiming"``; B starts at zero.
        sigma: Standard deviation of A for ``"normal"``. The released code takes 1.
        lora_alpha: The update is (lora_alpha / rank) BA; the released code takes 1.
        statistics: Whose running statistics batch norm gathers. ``"shared"``, as released: each step updates them with
            natural, then with adversarial data. ``"adversarial-only"``: the natural pass normalises with its own
            batch and leaves no trace, so that the model that ships has statistics of the data it was trained on.
            ``"dual"``: the branch has norms of its own, statistics and affine parameters, which learn; on a backbone
            without batch norm its layer norms, which have affine parameters alone.
        measured_on: Training images for SA: ``"augmented"``, as released, or ``"clean"``. ``"epoch"`` is an
            approximation that costs nothing: the branch's answers to the batches of the epoch before, given in
            training mode and while it learnt. The first epoch has none before it, and measures as ``"augmented"``.
        measured_images: About how many of them: whole batches, until there are as many. None takes all, as released.
        start: Where the attack starts: ``"uniform"``, as the paper's experiments, or ``"gaussian"``, as the released
            low-resolution code.

    Raises:
        InputError: If ``rank`` is below 1, ``alpha``, ``sigma`` or ``lora_alpha`` not positive, ``lambda2_max``
            negative, or a choice unknown.
    """

    paper = "Xu et al., ICLR 2024"
    passes_of_loss = 4
    passes_before_epoch = 1

    rank: int = 8
    alpha: float = 1.0
    lambda2_max: float = 6.0
    targets: Targets = "blocks"
    style: Style = "loralib"
    init: Init = "normal"
    sigma: float = 1.0
    lora_alpha: float = 1.0
    statistics: Statistics = "shared"
    measured_on: MeasuredOn = "augmented"
    measured_images: int | None = None
    start: Start = "uniform"

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise InputError(f"alpha={self.alpha}: the sharpening exponent is positive; the paper takes 1")
        if self.lambda2_max < 0:
            raise InputError(f"lambda2_max={self.lambda2_max}: a loss weight is 0 or more; the paper takes 6")
        if self.statistics not in get_args(Statistics):
            raise InputError(f"statistics={self.statistics!r} is unknown; use {', '.join(get_args(Statistics))}")
        if self.measured_on not in get_args(MeasuredOn):
            raise InputError(f"measured_on={self.measured_on!r} is unknown; use {' or '.join(get_args(MeasuredOn))}")
        if self.measured_images is not None and self.measured_images < 1:
            raise InputError(f"measured_images={self.measured_images}: an accuracy needs 1 or more; None is all")
        self._pairs = Pairs(self.rank, self.style, self.targets, self.lora_alpha, self.init, self.sigma)
        self.pgd = replace(self.pgd, start=self.start)
        self._right: Tensor | None = None  # share of the last batch, if it is asked for
        self._seen: float | None = None  # share of the last epoch
        self.set_weights(0.0)

    def prepare(self, model: RobustModel) -> None:
        """Add the low-rank branch; backbone, branch and head all train."""
        backbone = model.backbone
        branch = LowRankBranch(backbone, self._pairs)
        norms = {"shared": None, "adversarial-only": SparingNormBranch, "dual": DualNormBranch}[self.statistics]
        model.branches["natural"] = branch if norms is None else JoinedBranch(branch, norms(backbone))

    def set_weights(self, accuracy: float) -> None:
        """Set both loss weights from the natural accuracy in [0, 1] of the branch (Eq. 6 and 7)."""
        self.lambda1 = 1 - accuracy**self.alpha
        self.lambda2 = self.lambda2_max * accuracy**self.alpha

    def begin_epoch(self, model: RobustModel, accuracy: Accuracy) -> None:
        """Measure the branch and set the loss weights."""
        if self.measured_on == "epoch" and self._seen is not None:
            self.set_weights(self._seen)
            return
        measured = accuracy(
            lambda x: model.through("natural", x),
            augmented=self.measured_on != "clean",
            images=self.measured_images,
        )
        self.set_weights(measured)

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        """Return the three terms of Eq. 5, natural pass first."""
        natural, adversarial = model.through("natural", batch.x).float(), model(batch.x_adv).float()
        if self.measured_on == "epoch":
            self._right = (natural.detach().argmax(dim=1) == batch.y).float().mean()
        return {
            "natural": self.lambda1 * F.cross_entropy(natural, batch.y),
            "adversarial": (1 - self.lambda1) * F.cross_entropy(adversarial, batch.y),
            "consistency": self.lambda2 * kl_from(natural, adversarial),
        }

    def measures(self) -> dict[str, Tensor]:
        """Return the branch's accuracy on the batch, if the loss weights come from it."""
        return {} if self._right is None else {SEEN: self._right}

    def end_training(self, means: Mapping[str, float]) -> None:
        """Keep the branch's accuracy for the weights of the next epoch."""
        self._seen = means.get(SEEN)

    def objectives(self, model: RobustModel, batch: Batch) -> dict[str, Pair]:
        """Add Eq. 8: adversarial cross entropy against the divergence from the branch, whose backbone is stopped."""
        adversarial, natural = model(batch.x_adv), model.through("natural", batch.x)
        own = (cross_entropy_each(adversarial, batch.y), kl_each(adversarial, natural))
        return super().objectives(model, batch) | {"eq8": own}

    def gauges(self) -> dict[str, float]:
        """Return the loss weights of this epoch."""
        return {"lambda1": self.lambda1, "lambda2": self.lambda2}
