"""AutoLoRa (Xu et al., ICLR 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from autolora.errors import InputError
from autolora.losses import kl_from
from autolora.methods.base import Accuracy, Batch, Losses, Method, register
from autolora.models import LowRankBranch, RobustModel
from autolora.models.lowrank import Init, Style, Targets


@register("autolora")
@dataclass
class AutoLoRa(Method):
    r"""Natural data train a low-rank branch, adversarial data train the backbone, and the weights set themselves.

    .. math:: \lambda_1 CE(f_{W+BA}(x), y) + (1-\lambda_1) CE(f_W(x'), y) + \lambda_2 KL(f_{W+BA}(x) \| f_W(x'))

    (Eq. 5). On the natural branch every tensor of the backbone is stopped, so that natural data move only A, B and the
    head. Before each epoch the branch's natural accuracy SA on the training images, augmented as in training, sets

    .. math:: \lambda_1 = 1 - SA^\alpha, \qquad \lambda_2 = \lambda_2^{max} \, SA^\alpha

    (Eq. 6 and 7). Batch statistics are shared: each step updates them with natural, then with adversarial data.

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

    Raises:
        InputError: If ``rank`` is below 1, ``alpha`` not positive or ``lambda2_max`` negative.
    """

    paper = "Xu et al., ICLR 2024"

    rank: int = 8
    alpha: float = 1.0
    lambda2_max: float = 6.0
    targets: Targets = "blocks"
    style: Style = "loralib"
    init: Init = "normal"
    sigma: float = 1.0
    lora_alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"rank={self.rank}: a branch has rank 1 or more; the paper takes 8")
        if self.alpha <= 0:
            raise InputError(f"alpha={self.alpha}: the sharpening exponent is positive; the paper takes 1")
        if self.lambda2_max < 0:
            raise InputError(f"lambda2_max={self.lambda2_max}: a loss weight is 0 or more; the paper takes 6")
        self.set_weights(0.0)

    def prepare(self, model: RobustModel) -> None:
        """Add the low-rank branch; backbone, branch and head all train."""
        model.branches["natural"] = LowRankBranch(
            model.backbone, self.rank, self.style, self.targets, self.lora_alpha, self.init, self.sigma
        )

    def set_weights(self, accuracy: float) -> None:
        """Set both loss weights from the natural accuracy in [0, 1] of the branch (Eq. 6 and 7)."""
        self.lambda1 = 1 - accuracy**self.alpha
        self.lambda2 = self.lambda2_max * accuracy**self.alpha

    def begin_epoch(self, model: RobustModel, accuracy: Accuracy) -> None:
        """Measure the branch and set the loss weights."""
        self.set_weights(accuracy(lambda x: model.through("natural", x)))

    def loss(self, model: RobustModel, batch: Batch) -> Losses:
        """Return the three terms of Eq. 5, natural pass first."""
        natural, adversarial = model.through("natural", batch.x).float(), model(batch.x_adv).float()
        return {
            "natural": self.lambda1 * F.cross_entropy(natural, batch.y),
            "adversarial": (1 - self.lambda1) * F.cross_entropy(adversarial, batch.y),
            "consistency": self.lambda2 * kl_from(natural, adversarial),
        }

    def gauges(self) -> dict[str, float]:
        """Return the loss weights of this epoch."""
        return {"lambda1": self.lambda1, "lambda2": self.lambda2}
