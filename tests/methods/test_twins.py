"""TWINS against two explicit networks on two halves, and the specification's checks 6 and 8."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolora.attacks import PGD
from autolora.errors import InputError
from autolora.methods import Batch, TwinsAT, TwinsTRADES
from autolora.models import RobustModel, evaluating
from autolora.threat import ThreatModel

from .networks import sum_kl, tiny

PGD_1 = PGD(ThreatModel("8/255"), steps=1)


def pretrained() -> RobustModel:
    model = tiny()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that are not those of any batch, as after pre-training
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.train()


def batch(images: int = 8) -> Batch:
    x = torch.rand(images, 3, 8, 8)
    return Batch(x, torch.arange(images) % 3, (x + 0.1 * torch.randn_like(x)).clamp(0, 1))


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


class TwoNets:
    """The same method with two whole networks, whose shared weights sum their gradients by hand."""

    def __init__(self, model: RobustModel) -> None:
        self.adaptive, self.frozen = deepcopy(model).train(), deepcopy(model).train()
        for norm in norms(self.frozen):
            norm.eval()

    def gradient(self, name: str) -> Tensor:
        gradients = [dict(net.named_parameters())[name].grad for net in (self.adaptive, self.frozen)]
        return sum((g for g in gradients if g is not None), start=torch.zeros(()))


def test_at_equals_two_networks_on_two_halves() -> None:
    model, data = pretrained(), batch()
    reference = TwoNets(model)
    method = TwinsAT(PGD_1, weight_frozen=0.4)
    method.prepare(model)
    torch.autograd.backward(list(method.loss(model, data).values()))
    frozen, adaptive = reference.frozen(data.x_adv[:4]), reference.adaptive(data.x_adv[4:])
    torch.autograd.backward(0.4 * F.cross_entropy(frozen, data.y[:4]) + F.cross_entropy(adaptive, data.y[4:]))

    for name, parameter in model.named_parameters():
        if not name.startswith("branches.") and "bn" not in name:  # weights and head are shared
            torch.testing.assert_close(parameter.grad, reference.gradient(name), rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(norms(model.backbone), norms(reference.adaptive), strict=True):  # affine tensors are not
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    for ours, theirs in zip(norms(model.branches), norms(reference.frozen), strict=True):
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("images", [8, 7])
def test_trades_equals_the_released_normalisation(images: int) -> None:
    model, data = pretrained(), batch(images)
    half = images // 2
    reference = TwoNets(model)
    method = TwinsTRADES(PGD_1, weight_frozen=0.7)
    method.prepare(model)
    loss = sum(method.loss(model, data).values(), start=torch.zeros(()))
    f_adv, a_adv = reference.frozen(data.x_adv[:half]), reference.adaptive(data.x_adv[half:])
    f_nat, a_nat = reference.frozen(data.x[:half]), reference.adaptive(data.x[half:])
    expected = 0.7 * F.cross_entropy(f_nat, data.y[:half]) + F.cross_entropy(a_nat, data.y[half:])
    expected = expected + 6 * (0.7 * sum_kl(f_nat, f_adv) / images + sum_kl(a_nat, a_adv) / images)
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(norms(model.backbone), norms(reference.adaptive), strict=True):  # adversarial, then natural
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)


def test_half_a_batch_makes_the_effective_consistency_weight_three() -> None:
    model, data = pretrained(), batch()
    reference = TwoNets(model)
    method = TwinsTRADES(PGD_1, weight_frozen=0.0)
    method.prepare(model)
    loss = sum(method.loss(model, data).values(), start=torch.zeros(()))
    a_adv, a_nat = reference.adaptive(data.x_adv[4:]), reference.adaptive(data.x[4:])
    torch.testing.assert_close(loss, F.cross_entropy(a_nat, data.y[4:]) + 3 * sum_kl(a_nat, a_adv) / 4)


def test_eq2_sends_the_whole_batch_through_both() -> None:
    model, data = pretrained(), batch()
    reference = TwoNets(model)
    method = TwinsTRADES(PGD_1, weight_adaptive=3.0, routing="eq2")
    method.prepare(model)
    loss = sum(method.loss(model, data).values(), start=torch.zeros(()))
    expected = torch.zeros(())
    for weight, net in ((1.0, reference.frozen), (3.0, reference.adaptive)):
        adversarial, natural = net(data.x_adv), net(data.x)
        expected = expected + weight * (F.cross_entropy(natural, data.y) + 6 * sum_kl(natural, adversarial) / 8)
    torch.testing.assert_close(loss, expected)


def test_frozen_rows_are_independent_and_adaptive_rows_are_not() -> None:
    model, data = pretrained(), batch()
    TwinsAT(PGD_1).prepare(model)
    before = deepcopy(model.branches.state_dict())
    both, alone = model.through("frozen", data.x), model.through("frozen", data.x[:1])
    torch.testing.assert_close(both[:1], alone)
    assert not torch.allclose(model(data.x)[:2], model(data.x[:2]))
    moved = [name for name, tensor in model.branches.state_dict().items() if not torch.equal(tensor, before[name])]
    assert all(name.endswith("num_batches_tracked") for name in moved)


def test_the_adaptive_net_is_what_is_attacked_and_ships() -> None:
    model = pretrained()
    expected = deepcopy(model)
    method = TwinsAT(PGD_1)
    method.prepare(model)
    for parameter in model.branches.parameters():
        nn.init.zeros_(parameter)  # the frozen net answers nonsense
    x = batch().x
    with evaluating(model), evaluating(expected):
        torch.testing.assert_close(model(x), expected(x))
    method.finalize(model)
    assert list(model.state_dict()) == list(expected.state_dict())


@pytest.mark.parametrize("routing", ["halves", "eq2"])
@pytest.mark.parametrize("images", [2, 5])
def test_odd_and_tiny_batches_work(images: int, routing: str) -> None:
    model = pretrained()
    method = TwinsTRADES(PGD_1, routing=routing)  # type: ignore[arg-type]
    method.prepare(model)
    assert all(term.isfinite() for term in method.loss(model, batch(images)).values())


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="loss weight"):
        TwinsAT(PGD_1, weight_frozen=-1)
    with pytest.raises(InputError, match="halves"):
        TwinsAT(PGD_1, routing="thirds")  # type: ignore[arg-type]
