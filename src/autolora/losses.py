"""Losses that more than one method, or an attack, uses. Logits come in as (N, K), and are computed with in float32."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy_each(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy per image: logits (N, K) and labels (N,) to losses (N,)."""
    return F.cross_entropy(logits.float(), target, reduction="none")


def kl_each(logits: Tensor, natural: Tensor) -> Tensor:
    """KL(p_natural || p_logits) per image: two logits (N, K) to losses (N,). The attack of TRADES climbs it."""
    return _kl(natural, logits).sum(dim=1)


def kl_from(natural: Tensor, adversarial: Tensor) -> Tensor:
    r"""KL from natural to adversarial predictions, averaged over the batch (Zhang et al., 2019, eq. 5).

    .. math:: \frac1N \sum_i \sum_k p_k(x_i) (\log p_k(x_i) - \log p_k(x'_i))

    The natural predictions are the target, and the gradient flows through both arguments, as in every released code.

    Args:
        natural: Logits (N, K) of natural images.
        adversarial: Logits (N, K) of adversarial images.
    """
    return _kl(natural, adversarial).sum(dim=1).mean()


def _kl(natural: Tensor, adversarial: Tensor) -> Tensor:
    log_q, log_p = F.log_softmax(adversarial.float(), dim=1), F.log_softmax(natural.float(), dim=1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True)
