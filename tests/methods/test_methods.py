"""Natural fine-tuning and adversarial training by formula, and what holds for every registered method."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from inspect import isabstract

import pytest
import torch
from torch import Tensor

from autolora.attacks import PGD
from autolora.methods import AT, FT, METHODS, Batch, Losses, Method, register
from autolora.models import RobustModel, evaluating
from autolora.threat import ThreatModel

from .networks import tiny

PGD_2 = PGD(ThreatModel("8/255"), steps=2, start="natural")
every_method = pytest.mark.parametrize("name", METHODS)
TRAINED = {  # by first part of the parameter's name
    "ft": {"backbone", "head"},
    "at": {"backbone", "head"},
    "autolora": {"backbone", "head", "branches"},
}


def images() -> tuple[Tensor, Tensor]:
    return torch.rand(8, 3, 8, 8), torch.arange(8) % 3


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return -torch.stack([row[label] - row.exp().sum().log() for row, label in zip(logits, y, strict=True)]).mean()


def test_natural_fine_tuning_is_the_cross_entropy_of_natural_images() -> None:
    model, (x, y) = tiny(), images()
    losses = FT(PGD_2).loss(model, Batch(x, y, torch.full_like(x, torch.nan)))
    assert list(losses) == ["natural"]
    torch.testing.assert_close(losses["natural"], cross_entropy(model(x), y))


def test_natural_fine_tuning_attacks_nothing_and_selects_on_natural_accuracy() -> None:
    model, (x, y) = tiny(), images()
    assert torch.equal(FT(PGD_2).attack(model, x, y), x)
    assert FT.selects_on == "natural" and AT.selects_on == "robust"


def test_adversarial_training_is_the_cross_entropy_of_adversarial_images() -> None:
    model, (x, y) = tiny(), images()
    x_adv = (x + 0.1).clamp(0, 1)
    losses = AT(PGD_2).loss(model, Batch(torch.full_like(x, torch.nan), y, x_adv))
    assert list(losses) == ["adversarial"]
    torch.testing.assert_close(losses["adversarial"], cross_entropy(model(x_adv), y))


def test_adversarial_training_runs_the_model_once_in_training_mode() -> None:
    model, (x, y) = tiny(), images()
    AT(PGD_2).loss(model, Batch(x, y, x))
    assert {int(b) for name, b in model.named_buffers() if name.endswith("tracked")} == {1}


def test_adversarial_training_attacks_with_its_pgd() -> None:
    model, (x, y) = tiny(), images()
    with evaluating(model):
        x_adv = AT(PGD_2).attack(model, x, y)
        assert torch.equal(x_adv, PGD_2(model, x, y)) and not torch.equal(x_adv, x)


@every_method
def test_two_steps_change_what_trains_and_nothing_else(name: str) -> None:
    """Two, since the pair of a low-rank update has no gradient in A while B is zero."""
    method, model, (x, y) = METHODS[name](PGD_2), tiny(), images()
    method.prepare(model)
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    before = deepcopy(dict(model.named_parameters()))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        with evaluating(model):
            method.begin_epoch(model, lambda way, **_: 0.5)
            x_adv = method.attack(model, x, y)
        losses = method.loss(model.train(), Batch(x, y, x_adv))
        assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()
    changed = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert changed == trained
    assert {key.split(".")[0] for key in changed} == TRAINED.get(name, {key.split(".")[0] for key in trained})
    if name in TRAINED:
        assert len(trained) == len(before)  # all of it


@every_method
def test_what_training_adds_training_removes(name: str) -> None:
    method, model = METHODS[name](PGD_2), tiny()
    before = {key: tensor.shape for key, tensor in model.state_dict().items()}
    method.prepare(model)
    method.finalize(model)
    assert {key: tensor.shape for key, tensor in model.state_dict().items()} == before


@every_method
def test_every_method_says_what_it_is(name: str) -> None:
    method = METHODS[name]
    assert method.paper and method.summary().endswith(".") and not isabstract(method)
    pgd = method(PGD_2).pgd  # a paper may have a start of its own
    assert (pgd.threat, pgd.steps, pgd.step_size) == (PGD_2.threat, PGD_2.steps, PGD_2.step_size)


def test_a_name_is_taken_once() -> None:
    @dataclass
    class Mine(Method):
        """Mine."""

        def loss(self, model: RobustModel, batch: Batch) -> Losses:
            return {}

    with pytest.raises(ValueError, match=r"'at' is registered already, by AT; take another name"):
        register("at")(Mine)
    assert METHODS["at"] is AT
    assert register("mine")(Mine) is Mine and METHODS.pop("mine") is Mine
