r"""What AutoAttack climbs beside cross entropy: differences of logits, also where classes are few.

Logits (N, K) come sorted as :math:`z_{\pi_1} \ge z_{\pi_2} \ge \dots`; all losses are computed in float32, rise towards
a wrong answer and are positive, per image, only where the answer is wrong. See Croce and Hein, "Reliable evaluation of
adversarial robustness with an ensemble of diverse parameter-free attacks" (ICML 2020), section 4.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from autolora.errors import InputError

SMALLEST = 1e-12  # of a denominator: logits that are all alike give the loss 0, not NaN


def logit_margin(logits: Tensor, y: Tensor) -> Tensor:
    r"""Lead of the best wrong class, :math:`\max_{i \ne y} z_i - z_y`: logits (N, K), labels (N,) to losses (N,).

    Raises:
        InputError: If there is no wrong class.
    """
    return _wrong_classes(logits, y).max(dim=1).values - _of(logits.float(), y)


def targeted_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    r"""Lead of one wrong class, :math:`z_t - z_y`: logits (N, K), labels (N,), targets (N,) to losses (N,)."""
    logits = logits.float()
    return _of(logits, target) - _of(logits, y)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    r"""Difference of logits ratio (eq. 6), which neither a shift nor a scale of the logits changes.

    .. math:: \mathrm{DLR}(x, y) = -\frac{z_y - \max_{i \ne y} z_i}{z_{\pi_1} - z_{\pi_3}}

    It takes three classes. Between two it would be the constant -1 of every right answer, and the logit margin stands
    in; an ascent that goes by the direction of the gradient alone does not see the scale.

    Args:
        logits: Of shape (N, K), K at least 2.
        y: Labels (N,).

    Raises:
        InputError: If there are fewer than two classes.
    """
    margin = logit_margin(logits, y)
    if logits.shape[1] == 2:
        return margin
    largest = logits.float().topk(3, dim=1).values
    return margin / (largest[:, 0] - largest[:, 2]).clamp_min(SMALLEST)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    r"""Difference of logits ratio towards one wrong class (eq. 7), unchanged by shift and scale as well.

    .. math:: \mathrm{DLR}_t(x, y) = -\frac{z_y - z_t}{z_{\pi_1} - (z_{\pi_3} + z_{\pi_4}) / 2}

    It takes four classes. Of three, the denominator is :math:`z_{\pi_1} - (z_{\pi_2} + z_{\pi_3}) / 2`: the obvious
    :math:`z_{\pi_1} - z_{\pi_3}` would make the loss the constant -1 while the target is last, and this one makes it a
    function that falls with :math:`(z_y - z_t) / (z_y - z_u)` alone, u being the other wrong class. Between two classes
    the margin stands in, as for :func:`dlr`.

    Args:
        logits: Of shape (N, K), K at least 2.
        y: Labels (N,).
        target: Wrong classes (N,).

    Raises:
        InputError: If there are fewer than two classes.
    """
    _check(logits)
    margin = targeted_margin(logits, y, target)
    if logits.shape[1] == 2:
        return margin
    largest = logits.float().topk(min(4, logits.shape[1]), dim=1).values
    return margin / (largest[:, 0] - largest[:, -2:].mean(dim=1)).clamp_min(SMALLEST)


def likeliest_wrong(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """Return the wrong classes (N, min(count, K - 1)) of largest logits (N, K), the largest first.

    Raises:
        InputError: If there is no wrong class.
    """
    return _wrong_classes(logits, y).topk(min(count, logits.shape[1] - 1), dim=1).indices


def _wrong_classes(logits: Tensor, y: Tensor) -> Tensor:
    """Return logits (N, K) with minus infinity in the label's place."""
    _check(logits)
    return logits.float().masked_fill(F.one_hot(y, logits.shape[1]).bool(), -float("inf"))


def _check(logits: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise InputError(f"logits of shape {tuple(logits.shape)} have no wrong class to attack; return (N, K), K > 1")


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)
