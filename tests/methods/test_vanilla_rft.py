"""Vanilla robust fine-tuning against TRADES written out."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from autolora.attacks import PGD
from autolora.errors import InputError
from autolora.methods import Batch, VanillaRFT
from autolora.models import evaluating
from autolora.threat import ThreatModel

from .networks import sum_kl, tiny

PGD_3 = PGD(ThreatModel("8/255"), steps=3)


def test_the_loss_is_equation_1_and_the_adversarial_pass_goes_first() -> None:
    model, x, y = tiny().train(), torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    x_adv, reference = (x + 0.1 * torch.randn_like(x)).clamp(0, 1), deepcopy(model)
    loss = VanillaRFT(PGD_3).loss(model, Batch(x, y, x_adv))
    adversarial, natural = reference(x_adv), reference(x)
    torch.testing.assert_close(loss["natural"], F.cross_entropy(natural, y))
    torch.testing.assert_close(loss["consistency"], 6 * sum_kl(natural, adversarial) / 6)
    torch.testing.assert_close(model.state_dict(), reference.state_dict())  # so the statistics saw the same order


def test_the_kl_attack_climbs_the_divergence_from_the_natural_prediction() -> None:
    model, x, y = tiny(), torch.rand(16, 3, 8, 8), torch.zeros(16, dtype=torch.long)
    torch.nn.init.normal_(model.head.weight)
    method = VanillaRFT(PGD_3, attack_loss="kl")
    assert method.pgd.start == "gaussian"  # at the natural image itself the gradient is zero
    with evaluating(model):
        x_adv = method.attack(model, x, y)
        with torch.no_grad():
            assert sum_kl(model(x), model(x_adv)) > 3 * sum_kl(model(x), model(method.pgd.threat.sample(x)))
    # the labels do not matter to it
    with evaluating(model):
        torch.manual_seed(1)
        first = method.attack(model, x, y)
        torch.manual_seed(1)
        assert torch.equal(first, method.attack(model, x, y + 1))


def test_starts() -> None:
    assert VanillaRFT(PGD_3).pgd.start == "uniform"
    assert VanillaRFT(PGD_3, start="natural").pgd.start == "natural"


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="beta"):
        VanillaRFT(PGD_3, beta=-1)
    with pytest.raises(InputError, match="ce or kl"):
        VanillaRFT(PGD_3, attack_loss="mse")  # type: ignore[arg-type]
