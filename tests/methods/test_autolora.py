"""AutoLoRa against the recipe of its release, equation 5 written out, and the specification's checks."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolora.attacks import PGD
from autolora.errors import InputError
from autolora.evaluation import accuracy
from autolora.methods import AutoLoRa, Batch, LoFT
from autolora.models import LowRankBranch, RobustModel, evaluating
from autolora.models.lowrank import LowRankUpdate
from autolora.threat import ThreatModel

from .networks import tiny

PGD_2 = PGD(ThreatModel("8/255"), steps=2)


def prepared(**options: Any) -> tuple[AutoLoRa, RobustModel]:
    """A model whose branch has left the backbone, as after some training."""
    method, model = AutoLoRa(PGD_2, rank=2, **options), tiny()
    method.prepare(model)
    for parameter in model.branches.parameters():
        nn.init.normal_(parameter, std=0.3)
    method.set_weights(0.3)
    return method, model


def batch() -> Batch:
    x = torch.rand(6, 3, 8, 8)
    return Batch(x, torch.arange(6) % 3, (x + 0.1 * torch.randn_like(x)).clamp(0, 1))


@pytest.mark.parametrize("targets", ["blocks", "all", "last-block"])
def test_before_training_the_branch_gives_the_logits_of_the_backbone(targets: str) -> None:
    method, model, x = AutoLoRa(PGD_2, targets=targets), tiny(), batch().x
    method.prepare(model)
    with evaluating(model), torch.no_grad():
        assert torch.equal(model.through("natural", x), model(x))


@pytest.mark.parametrize(
    ("alpha", "accuracy", "lambda1", "lambda2"),
    [(1, 0.0, 1.0, 0.0), (1, 1.0, 0.0, 6.0), (2, 0.5, 0.75, 1.5), (1, 0.25, 0.75, 1.5), (0.5, 0.25, 0.5, 3.0)],
)
def test_the_weights_are_those_of_equations_6_and_7(
    alpha: float, accuracy: float, lambda1: float, lambda2: float
) -> None:
    method = AutoLoRa(PGD_2, alpha=alpha)
    method.begin_epoch(tiny(), lambda way, **_: accuracy)
    assert method.gauges() == pytest.approx({"lambda1": lambda1, "lambda2": lambda2}, abs=1e-12)


def test_the_largest_consistency_weight_is_an_option() -> None:
    method = AutoLoRa(PGD_2, lambda2_max=2)
    method.begin_epoch(tiny(), lambda way, **_: 0.5)
    assert method.gauges() == {"lambda1": 0.5, "lambda2": 1.0}


def test_before_the_first_measurement_all_is_natural() -> None:
    assert AutoLoRa(PGD_2).gauges() == {"lambda1": 1, "lambda2": 0}


def test_an_epoch_begins_with_the_accuracy_of_the_branch_not_of_the_backbone() -> None:
    method, model = prepared()
    x = torch.rand(20, 3, 8, 8)
    with evaluating(model), torch.no_grad():
        y = model.through("natural", x).argmax(dim=1)  # the branch is always right
        assert 0 < (model(x).argmax(dim=1) == y).float().mean() < 1
        method.begin_epoch(model, lambda way, **_: accuracy(way, [(x, y)]).accuracy)
    assert method.gauges() == {"lambda1": 0, "lambda2": 6}


def test_the_attack_is_on_the_backbones_own_path() -> None:
    method, model = prepared()
    method.pgd = PGD(ThreatModel("8/255"), steps=3, start="natural")
    x, y, _ = batch()
    with evaluating(model):
        x_adv = method.attack(model, x, y)
        assert torch.equal(x_adv, method.pgd(model, x, y))
        assert not torch.equal(x_adv, method.pgd(lambda x: model.through("natural", x), x, y))


class BothWays(nn.Conv2d):
    """A convolution of the release: it holds its pair, and a flag says whether the pair is added."""

    def __init__(self, conv: nn.Conv2d, update: LowRankUpdate) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 3, conv.stride, conv.padding, bias=False)  # type: ignore[arg-type]
        self.weight = deepcopy(conv.weight)
        self.lora_A, self.lora_B = deepcopy(update.lora_A), deepcopy(update.lora_B)
        self.natural = False

    def forward(self, x: Tensor) -> Tensor:
        pair = (self.lora_B @ self.lora_A).view(self.weight.shape) * (1.0 / 2)  # lora_alpha 1 over rank 2
        return F.conv2d(x, self.weight + pair if self.natural else self.weight, None, self.stride, self.padding)


class Release(nn.Module):
    """The release's recipe: ``requires_grad`` is switched off in the natural pass for all but pairs and head."""

    def __init__(self, model: RobustModel) -> None:
        super().__init__()
        branch = model.branches["natural"]
        assert isinstance(branch, LowRankBranch)
        self.net = deepcopy(model)
        self.net.branches.clear()
        self.convolutions: dict[str, BothWays] = {}
        for name, update in zip(branch.adapted, branch.updates, strict=True):
            owner, _, attribute = name.rpartition(".")
            conv = self.net.backbone.get_submodule(name)
            assert isinstance(conv, nn.Conv2d) and isinstance(update, LowRankUpdate)
            self.convolutions[name] = BothWays(conv, update)
            setattr(self.net.backbone.get_submodule(owner), attribute, self.convolutions[name])

    def forward(self, x: Tensor, natural: bool) -> Tensor:
        for name, parameter in self.net.backbone.named_parameters():
            parameter.requires_grad_("lora" in name or not natural)
        for conv in self.convolutions.values():
            conv.natural = natural
        return self.net(x)


def test_loss_gradients_and_statistics_are_those_of_the_release() -> None:
    method, model = prepared()
    release, (x, y, x_adv) = Release(model), batch()
    lambda1, lambda2 = 0.7, 1.8  # SA = 0.3

    loss = torch.stack(list(method.loss(model, Batch(x, y, x_adv)).values())).sum()
    natural, adversarial = release(x, natural=True), release(x_adv, natural=False)
    divergence = F.kl_div(F.log_softmax(adversarial, 1), F.softmax(natural, 1), reduction="sum") / len(x)
    expected = (
        lambda1 * F.cross_entropy(natural, y) + (1 - lambda1) * F.cross_entropy(adversarial, y) + lambda2 * divergence
    )
    torch.autograd.backward(loss)
    torch.autograd.backward(expected)
    torch.testing.assert_close(loss, expected)

    theirs = {name: p.grad for name, p in release.net.named_parameters()}
    ours = {name: p.grad for name, p in model.named_parameters() if not name.startswith("branches")}
    branch = model.branches["natural"]
    assert isinstance(branch, LowRankBranch) and len(branch.adapted) == 6
    for name, update in zip(branch.adapted, branch.updates, strict=True):
        ours |= {f"backbone.{name}.{key}": p.grad for key, p in update.named_parameters()}
    assert set(ours) == set(theirs)
    for name, grad in ours.items():
        assert grad is not None and grad.abs().sum() > 0, name
    torch.testing.assert_close(ours, {name: theirs[name] for name in ours})
    torch.testing.assert_close(dict(model.named_buffers()), dict(release.net.named_buffers()))


def test_each_term_of_the_loss_teaches_whom_the_table_names() -> None:
    method, model = prepared()
    losses, names = method.loss(model, batch()), dict(model.named_parameters())
    taught = {}
    for term, loss in losses.items():
        grads = torch.autograd.grad(loss, list(names.values()), retain_graph=True, allow_unused=True)
        taught[term] = {
            name.split(".")[0]
            for name, grad in zip(names, grads, strict=True)
            if grad is not None and grad.abs().sum() > 0
        }
        whole = [name for name in names if name.split(".")[0] in taught[term]]
        assert all(grad is not None for name, grad in zip(names, grads, strict=True) if name in whole)
    assert taught == {
        "natural": {"branches", "head"},
        "adversarial": {"backbone", "head"},
        "consistency": {"backbone", "branches", "head"},
    }


@pytest.mark.parametrize(("stopped", "learns"), [("natural", "backbone"), ("adversarial", "branches")])
def test_consistency_teaches_both_paths_through_their_own_logits(stopped: str, learns: str) -> None:
    """FE gradients are those with z_nat constant, and the branch's those with z_adv constant."""
    method, model = prepared()
    x, y, x_adv = batch()
    learners = [p for name, p in model.named_parameters() if name.startswith(learns)]
    ours = torch.autograd.grad(torch.stack(list(method.loss(model, Batch(x, y, x_adv)).values())).sum(), learners)
    natural, adversarial = model.through("natural", x), model(x_adv)
    if stopped == "natural":
        natural = natural.detach()
    else:
        adversarial = adversarial.detach()
    p, log_p, log_q = natural.softmax(1), natural.log_softmax(1), adversarial.log_softmax(1)
    own = 0.3 * F.cross_entropy(adversarial, y) if learns == "backbone" else 0.7 * F.cross_entropy(natural, y)
    expected = torch.autograd.grad(own + 1.8 * (p * (log_p - log_q)).sum() / len(x), learners)
    torch.testing.assert_close(ours, expected)


def test_the_terms_are_equation_5_term_by_term() -> None:
    method, model = prepared()
    x, y, x_adv = batch()
    losses = method.loss(model, Batch(x, y, x_adv))
    with torch.no_grad():  # in training mode again: the batch's own statistics, whatever the running ones have become
        p, q = model.through("natural", x).softmax(1).tolist(), model(x_adv).softmax(1).tolist()
    natural = sum(-math.log(row[label]) for row, label in zip(p, y.tolist(), strict=True)) / 6
    adversarial = sum(-math.log(row[label]) for row, label in zip(q, y.tolist(), strict=True)) / 6
    consistency = sum(a * math.log(a / b) for p_i, q_i in zip(p, q, strict=True) for a, b in zip(p_i, q_i, strict=True))
    expected = {"natural": 0.7 * natural, "adversarial": 0.3 * adversarial, "consistency": 1.8 * consistency / 6}
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-4)


def test_one_step_moves_the_running_statistics_twice_the_natural_batch_first() -> None:
    """m2 = 0.9 (0.9 m + 0.1 mu_nat) + 0.1 mu_adv, and so the unbiased variance; at the stem, which has no pair."""
    method, model = prepared()
    x, y, x_adv = batch()
    norm, stem = model.backbone.get_submodule("bn1"), model.backbone.get_submodule("conv1")
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    nn.init.normal_(norm.running_mean)
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    with torch.no_grad():
        natural, adversarial = stem(model.normalize(x)), stem(model.normalize(x_adv))
    method.loss(model, Batch(x, y, x_adv))

    def twice(start: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return 0.9 * (0.9 * start + 0.1 * first) + 0.1 * second

    dims = (0, 2, 3)
    torch.testing.assert_close(norm.running_mean, twice(mean, natural.mean(dims), adversarial.mean(dims)))
    torch.testing.assert_close(norm.running_var, twice(variance, natural.var(dims), adversarial.var(dims)))
    tracked = [b for name, b in model.named_buffers() if name.endswith("num_batches_tracked")]
    assert len(tracked) == 7 and all(int(count) == 2 for count in tracked)


def test_what_ships_has_no_branch_and_the_backbones_own_names() -> None:
    method, model, x = AutoLoRa(PGD_2, rank=2), tiny(), batch().x
    before = list(model.state_dict())
    method.prepare(model)
    assert len(model.state_dict()) == len(before) + 12
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    with evaluating(model), torch.no_grad():
        logits = model(x)
        method.finalize(model)
        assert torch.equal(model(x), logits)  # dropped, not merged: the backbone is what was trained to be robust
    assert list(model.state_dict()) == before and not model.branches
    assert not any("lora" in name for name in before)


def test_options_reach_the_branch() -> None:
    torch.manual_seed(1)
    method, model = AutoLoRa(PGD_2, rank=3, targets=["layer1.0.conv1"], sigma=0.5, lora_alpha=6), tiny()
    method.prepare(model)
    branch = model.branches["natural"]
    assert isinstance(branch, LowRankBranch) and branch.adapted == ("layer1.0.conv1",)
    (update,) = branch.updates
    assert isinstance(update, LowRankUpdate)
    assert update.lora_A.shape == (9, 12) and update.lora_B.shape == (12, 9) and update.scale == 2
    assert update.lora_A.std().item() == pytest.approx(0.5, rel=0.2) and not update.lora_B.any()


def test_style_and_initialisation_reach_the_branch() -> None:
    """PEFT's pair of a 3x3 convolution, and a uniform A: its entries are bounded by 1 / sqrt(fan in)."""
    method, model = AutoLoRa(PGD_2, rank=3, targets=["layer1.0.conv1"], style="peft", init="kaiming"), tiny()
    method.prepare(model)
    pair = dict(model.branches["natural"].named_parameters())
    assert [tensor.shape for tensor in pair.values()] == [(3, 4, 3, 3), (4, 3, 1, 1)]
    assert 0.12 < pair["updates.0.lora_A"].abs().max() <= 1 / 6


@pytest.mark.parametrize(
    "option", [{"rank": 0}, {"rank": -8}, {"alpha": 0}, {"alpha": -1}, {"lambda2_max": -6}], ids=str
)
def test_an_option_that_cannot_work_is_refused_by_name(option: dict[str, Any]) -> None:
    ((name, value),) = option.items()
    with pytest.raises(InputError, match=f"^{name}={value}: .* the paper takes"):
        AutoLoRa(PGD_2, **option)


@pytest.mark.parametrize("method", [AutoLoRa, LoFT])
@pytest.mark.parametrize(
    "option",
    [
        *({"rank": 0}, {"sigma": 0.0}, {"sigma": float("nan")}, {"lora_alpha": -1.0}),
        *({"targets": "block"}, {"style": "x"}, {"init": "x"}),
    ],
    ids=str,
)
def test_pairs_that_cannot_learn_are_refused_before_there_is_a_model(
    option: dict[str, Any], method: type[AutoLoRa] | type[LoFT]
) -> None:
    ((name, value),) = option.items()
    with pytest.raises(InputError, match=f"{name}={value!r}"):
        method(PGD_2, **option)


def statistics(model: RobustModel) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.backbone.named_buffers() if "running" in name}


@pytest.mark.parametrize("choice", ["adversarial-only", "dual"])
def test_statistics_of_the_backbone_can_be_those_of_adversarial_data_alone(choice: str) -> None:
    method, model = prepared(statistics=choice)
    data, alone = batch(), deepcopy(model)
    alone.branches.clear()
    alone(data.x_adv)  # one forward pass in training mode, and nothing else
    method.loss(model, data)
    torch.testing.assert_close(statistics(model), statistics(alone))


def test_shared_statistics_see_natural_data_too() -> None:
    method, model = prepared()
    data, alone = batch(), deepcopy(model)
    alone(data.x_adv)
    method.loss(model, data)
    ours, theirs = statistics(model)["bn1.running_mean"], statistics(alone)["bn1.running_mean"]
    assert not torch.allclose(ours, theirs)


def test_dual_norms_of_the_branch_learn_from_natural_data_and_keep_its_statistics() -> None:
    method, model = prepared(statistics="dual")
    before = deepcopy(dict(model.branches.named_buffers()))
    losses = method.loss(model, batch())
    torch.autograd.backward(losses["natural"])
    norms = {name: p for name, p in model.branches.named_parameters() if ".norms." in name}
    assert norms and all(p.grad is not None and p.grad.abs().sum() > 0 for p in norms.values())
    assert all(p.grad is None for p in model.backbone.parameters())
    moved = [name for name, buffer in model.branches.named_buffers() if not torch.equal(buffer, before[name])]
    assert any("running_mean" in name for name in moved)


@pytest.mark.parametrize("choice", ["shared", "adversarial-only", "dual"])
def test_what_ships_is_the_backbone_whatever_the_statistics(choice: str) -> None:
    method, model = prepared(statistics=choice)
    x = batch().x
    with evaluating(model), torch.no_grad():
        before = model(x)
        method.finalize(model)
        assert torch.equal(model(x), before) and not list(model.branches.parameters())


def test_where_and_on_how_many_images_the_branch_is_measured() -> None:
    asked: list[tuple[bool, int | None]] = []

    def accuracy(way: Any, *, augmented: bool = True, images: int | None = None) -> float:
        asked.append((augmented, images))
        return 0.5

    for options in ({}, {"measured_on": "clean"}, {"measured_on": "clean", "measured_images": 7}):
        AutoLoRa(PGD_2, **options).begin_epoch(tiny(), accuracy)
    assert asked == [(True, None), (False, None), (False, 7)]


def test_the_start_of_the_attack_is_an_option() -> None:
    assert AutoLoRa(PGD_2).pgd.start == "uniform" and AutoLoRa(PGD_2, start="gaussian").pgd.start == "gaussian"


@pytest.mark.parametrize(
    "options", [{"statistics": "mixed"}, {"measured_on": "test"}, {"measured_images": 0}, {"start": "nowhere"}]
)
def test_choices_that_do_not_exist_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        AutoLoRa(PGD_2, **options)


def test_the_weights_can_come_from_the_answers_of_the_epoch_before() -> None:
    """The first epoch measures; the next takes the mean of what the loss has seen, and asks nobody."""
    model, method = tiny(), AutoLoRa(PGD_2, measured_on="epoch")
    method.prepare(model)
    asked: list[bool] = []
    method.begin_epoch(model, lambda way, augmented=True, images=None: 0.25 if not asked.append(augmented) else 0.0)  # type: ignore[func-returns-value]
    assert asked == [True] and method.gauges()["lambda1"] == 0.75
    x, y = torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    expected = (deepcopy(model).train().through("natural", x).argmax(1) == y).float().mean()
    method.loss(model.train(), Batch(x, y, x))
    torch.testing.assert_close(method.measures(), {"natural_accuracy": expected})
    method.end_training({"natural": 1.0, "natural_accuracy": 0.5})
    method.begin_epoch(model, lambda way, **_: pytest.fail("measured again"))
    assert (method.lambda1, method.lambda2) == (0.5, 3.0)
    assert AutoLoRa(PGD_2).measures() == {}
