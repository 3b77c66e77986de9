"""The pairs of losses that gradient similarity compares, against Eq. 3, 4 and 8 and their control written out."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from autolora.attacks import PGD
from autolora.methods import METHODS, AutoLoRa, Batch, LoFT, Method, TwinsAT, TwinsTRADES, VanillaRFT
from autolora.models import RobustModel
from autolora.models.lowrank import LowRankUpdate
from autolora.threat import ThreatModel

from .networks import tiny

PGD_1 = PGD(ThreatModel("8/255"), steps=1)
OWN = {"vanilla-rft": "eq3", "twins-at": "eq4", "twins-trades": "eq4", "autolora": "eq8"}
every_method = pytest.mark.parametrize("name", METHODS)
Gradient = dict[str, Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return torch.stack([-(row[label] - row.exp().sum().log()) for row, label in zip(logits, y, strict=True)])


def kl(natural: Tensor, adversarial: Tensor) -> Tensor:
    """KL(natural || adversarial) of each image: the first are the weights of the sum."""
    p, q = natural.softmax(dim=1), adversarial.softmax(dim=1)
    return (p * (p / q).log()).sum(dim=1)


def data() -> Batch:
    x = torch.rand(5, 3, 8, 8)
    return Batch(x, torch.arange(5) % 3, (x + 0.1 * torch.randn_like(x)).clamp(0, 1))


def prepared(method: Method) -> RobustModel:
    """A network in evaluation mode in which nothing is as it starts: norms, branches, pairs and head are random."""
    model = tiny()
    method.prepare(model)
    nn.init.normal_(model.head.weight, std=0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        if isinstance(module, LowRankUpdate):
            nn.init.normal_(module.lora_B, std=0.1)
    return model.eval().requires_grad_(True)


def gradient(losses: Tensor, model: nn.Module) -> Gradient:
    """The sum's gradient, by name; zero where the losses do not depend on a parameter."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(losses.sum(), list(named.values()), retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}


def assert_close(ours: Gradient, theirs: Gradient) -> None:
    assert any(g.any() for g in theirs.values())
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@every_method
def test_a_method_has_the_control_and_its_papers_own_pair(name: str) -> None:
    method = METHODS[name](PGD_1)
    pairs = method.objectives(prepared(method), data())
    assert list(pairs) == ["adv-ce-vs-kl", *([OWN[name]] if name in OWN else [])]
    for loss in (loss for pair in pairs.values() for loss in pair):
        assert loss.shape == (5,) and loss.dtype == torch.float32 and (loss > 0).all()


@every_method
def test_the_control_is_adversarial_cross_entropy_and_divergence_from_constants(name: str) -> None:
    method, batch = METHODS[name](PGD_1), data()
    model = prepared(method)
    ours = method.objectives(model, batch)["adv-ce-vs-kl"]
    constants, adversarial = model(batch.x).data, model(batch.x_adv)
    theirs = cross_entropy(adversarial, batch.y), kl(constants, adversarial)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-6)
        assert_close(gradient(our, model), gradient(their, model))


def test_eq3_is_the_natural_and_the_adversarial_objective_with_the_gradient_through_both_passes() -> None:
    method, batch = VanillaRFT(PGD_1), data()
    model = prepared(method)
    ours = method.objectives(model, batch)["eq3"]
    natural, adversarial = model(batch.x), model(batch.x_adv)
    theirs = cross_entropy(natural, batch.y), kl(natural, adversarial)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-6)
        assert_close(gradient(our, model), gradient(their, model))
    constants = gradient(kl(natural.data, adversarial), model)
    assert not torch.allclose(gradient(ours[1], model)["head.weight"], constants["head.weight"], rtol=1e-2)


@pytest.mark.parametrize("method", [TwinsAT, TwinsTRADES])
def test_eq4_is_the_weighted_sum_over_two_whole_networks(method: type[TwinsAT] | type[TwinsTRADES]) -> None:
    """Weights are shared, so their gradients add up; the affine parameters of the two nets are apart."""
    twins, batch = method(PGD_1, weight_frozen=0.4, weight_adaptive=1.7), data()
    model = prepared(twins)
    adaptive, frozen = deepcopy(model), deepcopy(model)
    names = [name for name, module in model.backbone.named_modules() if isinstance(module, nn.BatchNorm2d)]
    copies = [module for module in model.branches.modules() if isinstance(module, nn.BatchNorm2d)]
    for name, copy in zip(names, copies, strict=True):
        frozen.backbone.get_submodule(name).load_state_dict(copy.state_dict())

    ours = twins.objectives(model, batch)["eq4"]
    f, f_adv, a, a_adv = (net(x) for net in (frozen, adaptive) for x in (batch.x, batch.x_adv))
    natural = 0.4 * cross_entropy(f, batch.y) + 1.7 * cross_entropy(a, batch.y)
    adversarial = 0.4 * kl(f, f_adv) + 1.7 * kl(a, a_adv)
    for our, their in zip(ours, (natural, adversarial), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-6)
        found, of_adaptive, of_frozen = gradient(our, model), gradient(their, adaptive), gradient(their, frozen)
        for name in ("backbone.conv1.weight", "backbone.layer3.0.conv2.weight", "head.weight"):
            assert_close({name: found[name]}, {name: of_adaptive[name] + of_frozen[name]})
        assert_close({"": found["backbone.bn1.weight"]}, {"": of_adaptive["backbone.bn1.weight"]})
        assert_close({"": found["branches.frozen.norms.0.weight"]}, {"": of_frozen["backbone.bn1.weight"]})


def test_eq8_compares_the_adversarial_pass_with_the_network_in_which_the_update_is_merged() -> None:
    method, batch = AutoLoRa(PGD_1, rank=2), data()
    model = prepared(method)
    merged = deepcopy(model)
    branch = model.branches["natural"]
    with torch.no_grad():
        for name, update in zip(branch.adapted, branch.updates, strict=True):  # type: ignore[arg-type]
            merged.backbone.get_parameter(f"{name}.weight").add_(update())
    ours = method.objectives(model, batch)["eq8"]
    adversarial, natural = model(batch.x_adv), merged(batch.x)
    theirs = cross_entropy(adversarial, batch.y), kl(natural, adversarial)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-6)
        backbone = {name: g for name, g in gradient(their, model).items() if name.startswith("backbone.")}
        assert_close({name: gradient(our, model)[name] for name in backbone}, backbone)
    pair = {name for name, g in gradient(ours[1], model).items() if "lora" in name and g.any()}
    assert len(pair) == 2 * len(branch.updates)  # type: ignore[arg-type]


def test_lofts_control_goes_through_the_adapted_weights() -> None:
    method, batch = LoFT(PGD_1, rank=2), data()
    model = prepared(method)
    adapted, _ = method.objectives(model, batch)["adv-ce-vs-kl"]
    plain = deepcopy(model)
    for module in plain.modules():
        if isinstance(module, LowRankUpdate):
            nn.init.zeros_(module.lora_B)
    assert not torch.allclose(adapted, method.objectives(plain, batch)["adv-ce-vs-kl"][0], rtol=1e-2)
    method.finalize(model)  # merges the updates
    torch.testing.assert_close(adapted, cross_entropy(model(batch.x_adv), batch.y), rtol=1e-4, atol=1e-6)
