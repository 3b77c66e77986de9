"""LoFT against the PEFT package, equation 3 written out, and its exact merge; linear probing against its protocol."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from autolora.attacks import PGD
from autolora.errors import InputError
from autolora.methods import ALF, SLF, Batch, LoFT
from autolora.models import RobustModel, evaluating
from autolora.models.adapters import fingerprint
from autolora.threat import ThreatModel

from .networks import sum_kl, tiny

PGD_2 = PGD(ThreatModel("8/255"), steps=2)


def batch() -> Batch:
    x = torch.rand(6, 3, 8, 8)
    return Batch(x, torch.arange(6) % 3, (x + 0.1 * torch.randn_like(x)).clamp(0, 1))


def trained() -> tuple[LoFT, RobustModel, RobustModel]:
    """LoFT with updates that are not zero, and the model as it was before."""
    model = tiny()
    before = deepcopy(model)
    method = LoFT(PGD_2, rank=2)
    method.prepare(model)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)
    return method, model, before


def test_only_pairs_and_head_train() -> None:
    method, model, _ = trained()
    method.begin_training(model)
    torch.autograd.backward(list(method.loss(model, batch()).values()))
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved == {"head.weight", "head.bias"} | {
        name for name, _ in model.named_parameters() if name.endswith(("lora_A", "lora_B"))
    }
    convolutions = [module for module in model.backbone.modules() if isinstance(module, nn.Conv2d)]
    assert len(method.adapted) == len(convolutions)  # stem included


def test_both_passes_and_the_attack_go_through_the_adapted_weights() -> None:
    method, model, before = trained()
    data = batch()
    plain = deepcopy(before)
    for name in method.adapted:  # the same network with W + s BA written into it
        update = model.backbone.get_submodule(name).parametrizations["weight"][0].update  # type: ignore[union-attr, index]
        with torch.no_grad():
            layer = plain.backbone.get_submodule(name)
            assert isinstance(layer, nn.Conv2d)
            layer.weight += update()
    loss = method.loss(model.train(), data)
    natural, adversarial = plain.train()(data.x), plain(data.x_adv)
    torch.testing.assert_close(loss["natural"], F.cross_entropy(natural, data.y))
    torch.testing.assert_close(loss["consistency"], 6 * sum_kl(natural, adversarial) / 6)
    with evaluating(model), evaluating(plain):
        torch.manual_seed(3)
        ours = method.attack(model, data.x, data.y)
        torch.manual_seed(3)
        torch.testing.assert_close(ours, PGD_2(plain, data.x, data.y))


def test_the_merge_is_exact_and_leaves_the_backbones_own_names() -> None:
    method, model, before = trained()
    x = batch().x
    with evaluating(model), torch.no_grad():
        expected = model(x)
    method.finalize(model)
    with evaluating(model), torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-6)
    assert list(model.state_dict()) == list(before.state_dict())
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_adapter_is_what_was_trained_and_belongs_to_what_was_there_before() -> None:
    method, model, before = trained()
    assert method.adapter is None
    method.begin_training(model)
    torch.autograd.backward(list(method.loss(model, batch()).values()))  # moves the statistics
    with torch.no_grad():
        model.head.weight += 1
    pairs = {name: parameter.clone() for name, parameter in model.named_parameters() if ".lora_" in name}
    method.finalize(model)
    adapter = method.adapter
    assert adapter is not None and tuple(adapter.pairs) == method.adapted
    assert adapter.fingerprint == fingerprint(before.backbone)
    assert (adapter.rank, adapter.lora_alpha, adapter.architecture) == (2, 8.0, before.architecture)
    for name, (a, b) in adapter.pairs.items():
        stem = f"backbone.{name}.parametrizations.weight.0.update"
        assert torch.equal(a, pairs[f"{stem}.lora_A"]) and torch.equal(b, pairs[f"{stem}.lora_B"])
    assert torch.equal(adapter.head["weight"], model.head.weight)
    assert adapter.norms.keys() == {
        name for name, m in before.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)
    }
    for name, state in adapter.norms.items():
        now, then = (m.backbone.get_submodule(name).state_dict() for m in (model, before))
        assert all(torch.equal(state[key], now[key]) for key in now)
        assert not torch.equal(state["running_mean"], then["running_mean"])
    with torch.no_grad():
        model.head.weight += 1  # the adapter is a copy: what happens to the model later does not reach it
    assert not torch.equal(adapter.head["weight"], model.head.weight)


def test_a_form_that_peft_lacks_leaves_no_adapter_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model = tiny()
    method = LoFT(PGD_2, rank=2, style="loralib")
    method.prepare(model)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "no adapter" in line and "style=peft" in line
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)
    x = batch().x
    with evaluating(model), torch.no_grad():
        expected = model(x)
    method.finalize(model)
    assert method.adapter is None
    with evaluating(model), torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-6)


def test_what_a_method_finds_is_no_option_of_it() -> None:
    options = {item.name for item in fields(LoFT) if item.init}
    assert not options & {"adapter", "adapted"} and "rank" in options
    assert "adapter" not in repr(LoFT(PGD_2))


@pytest.mark.parametrize("norms", ["train", "frozen"])
def test_running_statistics_follow_the_data_only_if_asked(norms: str) -> None:
    model = tiny()
    method = LoFT(PGD_2, norms=norms)  # type: ignore[arg-type]
    method.prepare(model)
    before = model.backbone.bn1.running_mean.clone()  # type: ignore[union-attr, operator]
    method.begin_training(model)
    method.loss(model, batch())
    assert torch.equal(model.backbone.bn1.running_mean, before) == (norms == "frozen")  # type: ignore[union-attr, arg-type]


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="loss weight"):
        LoFT(PGD_2, v=-1)
    with pytest.raises(InputError, match="train or frozen"):
        LoFT(PGD_2, norms="batch")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [SLF(PGD_2), ALF(PGD_2)])
def test_probing_moves_the_head_alone_and_no_statistic(method: SLF | ALF) -> None:
    model, data = tiny(), batch()
    before = deepcopy(model.backbone.state_dict())
    method.prepare(model)
    assert not model.head.weight.any() and not model.head.bias.any()
    method.begin_training(model)
    assert not any(module.training for module in model.modules())
    torch.autograd.backward(list(method.loss(model, data).values()))
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"head.weight", "head.bias"}
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    method.finalize(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_standard_probing_is_logistic_regression_on_frozen_features() -> None:
    model, data = tiny(), batch()
    method = SLF(PGD_2)
    method.prepare(model)
    with evaluating(model), torch.no_grad():
        features = model.backbone(model.normalize(data.x))
    method.begin_training(model)
    torch.autograd.backward(method.loss(model, data)["natural"])
    residual = torch.full((6, 3), 1 / 3) - F.one_hot(data.y, 3)  # softmax of zeros minus the label
    torch.testing.assert_close(model.head.weight.grad, residual.T @ features / 6)
