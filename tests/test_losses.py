"""The losses against numbers worked out by hand and sums written out."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autolora.losses import cross_entropy_each, kl_each, kl_from


def probabilities(logits: list[float]) -> list[float]:
    exponents = [math.exp(logit - max(logits)) for logit in logits]
    return [exponent / sum(exponents) for exponent in exponents]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


NATURAL, ADVERSARIAL = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()


def test_the_direction_is_from_natural_to_adversarial() -> None:
    """0.9 ln 1.8 + 0.1 ln 0.2; the reverse is 0.5 ln (0.5 / 0.9) + 0.5 ln (0.5 / 0.1)."""
    assert kl_from(NATURAL, ADVERSARIAL).item() == pytest.approx(0.3681, abs=5e-5)
    assert kl_from(ADVERSARIAL, NATURAL).item() == pytest.approx(0.5108, abs=5e-5)
    # the objective of an attack has what it climbs first, and what it compares with second
    assert kl_each(ADVERSARIAL, NATURAL).item() == pytest.approx(0.3681, abs=5e-5)


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_each_loss_is_the_sum_it_stands_for(seed: int, count: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    natural, adversarial = 5 * torch.randn(2, count, classes, generator=generator)
    target = torch.randint(classes, (count,), generator=generator)
    p, q = [[probabilities(row) for row in logits.tolist()] for logits in (natural, adversarial)]
    each = [kl(a, b) for a, b in zip(p, q, strict=True)]
    entropies = [-math.log(row[label]) for row, label in zip(p, target.tolist(), strict=True)]
    torch.testing.assert_close(kl_each(adversarial, natural), torch.tensor(each), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kl_from(natural, adversarial), torch.tensor(sum(each) / count), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cross_entropy_each(natural, target), torch.tensor(entropies), rtol=1e-4, atol=1e-5)


def test_the_gradient_flows_through_both_arguments() -> None:
    """With q = p_adv and p = p_nat: d/d adv = q - p, and d/d nat = p (log p - log q - KL), each over N."""
    torch.manual_seed(0)
    natural, adversarial = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    to_natural, to_adversarial = torch.autograd.grad(kl_from(natural, adversarial), (natural, adversarial))
    p, q = natural.detach().softmax(dim=1), adversarial.detach().softmax(dim=1)
    ratio = p.log() - q.log()
    divergence = (p * ratio).sum(dim=1, keepdim=True)
    torch.testing.assert_close(to_adversarial, (q - p) / 4)
    torch.testing.assert_close(to_natural, p * (ratio - divergence) / 4)


def test_the_same_predictions_have_no_divergence_even_when_certain() -> None:
    certain = torch.tensor([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]])
    assert kl_from(certain, certain).item() == 0
    assert kl_from(certain, certain.flip(1)).isfinite()


def test_low_precision_logits_are_computed_with_in_float32() -> None:
    losses: list[Callable[[Tensor, Tensor], Tensor]] = [kl_each, kl_from]
    natural, adversarial = torch.randn(2, 4, 10).to(torch.bfloat16)
    for loss in losses:
        ours = loss(natural, adversarial)
        assert ours.dtype == torch.float32
        assert torch.equal(ours, loss(natural.float(), adversarial.float()))
    ours = cross_entropy_each(natural, torch.arange(4))
    assert torch.equal(ours, cross_entropy_each(natural.float(), torch.arange(4)))
