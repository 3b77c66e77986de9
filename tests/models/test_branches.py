"""Branches against the released gradient-flag recipe, the update rule of batch norm, and nets built by hand."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import autolora.models.resnet_cifar  # noqa: F401  registers the CIFAR ResNets with timm
from autolora.errors import InputError
from autolora.models.branches import (
    Branch,
    DualNormBranch,
    FrozenNormBranch,
    JoinedBranch,
    LowRankBranch,
    SparingNormBranch,
    evaluating,
)
from autolora.models.lowrank import LowRankUpdate, Pairs, Style


def through(backbone: nn.Module, branch: Branch, x: Tensor) -> Tensor:
    with branch.mode(backbone):
        return functional_call(backbone, branch.tensors(backbone), (x,))


def trained(branch: LowRankBranch) -> LowRankBranch:
    """Give A and B random entries of moderate size, as training would."""
    for parameter in branch.parameters():
        nn.init.normal_(parameter, std=0.1)
    return branch


class Toy(nn.Module):
    """Two convolutions and norms: small enough to be written out again in a test."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 3, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        for norm in (self.bn1, self.bn2):
            nn.init.normal_(norm.weight, mean=1, std=0.1)
            nn.init.normal_(norm.bias, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x))).mean(dim=(2, 3))


TOY = ("conv1", "conv2")


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("style", ["loralib", "peft"])
@pytest.mark.parametrize(
    "name", ["resnet20_cifar", "resnet18", "vit_tiny_patch16_224", "efficientnet_b0", "regnety_002"]
)
def test_at_first_the_branch_is_the_backbone_bit_by_bit(name: str, style: Style) -> None:
    backbone = timm.create_model(name, pretrained=False, num_classes=0).eval()
    branch = LowRankBranch(backbone, Pairs(rank=2, style=style))
    size = 224 if "vit" in name else 32
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(through(backbone, branch, x), backbone(x))
        assert not torch.equal(through(backbone, trained(branch), x), backbone(x))


@pytest.mark.parametrize("style", ["loralib", "peft"])
def test_only_the_pairs_and_the_head_learn_from_the_branch(style: Style) -> None:
    backbone = timm.create_model("resnet20_cifar", pretrained=False, num_classes=0)
    head, branch = nn.Linear(64, 5), LowRankBranch(backbone, Pairs(rank=2, style=style))
    trained(branch)
    logits = head(through(backbone, branch, torch.rand(4, 3, 16, 16)))
    torch.autograd.backward(F.cross_entropy(logits, torch.arange(4)))
    assert all(parameter.grad is None for parameter in backbone.parameters())
    for parameter in (*branch.parameters(), *head.parameters()):
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


class Toggling(nn.Module):
    """The released recipe: one net holding both, and ``requires_grad`` toggled between its two forward passes."""

    def __init__(self, toy: Toy, updates: list[LowRankUpdate], head: nn.Linear) -> None:
        super().__init__()
        self.toy, self.updates, self.head = deepcopy(toy), nn.ModuleList(deepcopy(updates)), deepcopy(head)

    def forward(self, x: Tensor, natural: bool) -> Tensor:
        for parameter in self.toy.parameters():
            parameter.requires_grad_(not natural)
        for conv, norm, update in zip(
            (self.toy.conv1, self.toy.conv2), (self.toy.bn1, self.toy.bn2), self.updates, strict=True
        ):
            assert isinstance(update, LowRankUpdate)
            pair = (update.lora_B @ update.lora_A).view(conv.weight.shape) * update.scale
            weight = conv.weight + pair if natural else conv.weight
            x = F.relu(norm(F.conv2d(x, weight, conv.bias, groups=conv.groups)))
        return self.head(x.mean(dim=(2, 3)))


def autolora_loss(natural: Tensor, adversarial: Tensor, y: Tensor, stop: str = "") -> Tensor:
    """Equation 5 with lambda_1 = 0.3 and lambda_2 = 2; ``stop`` names the logits that are taken as constants."""
    natural = natural.detach() if stop == "natural" else natural
    adversarial = adversarial.detach() if stop == "adversarial" else adversarial
    consistency = F.kl_div(F.log_softmax(adversarial, 1), F.softmax(natural, 1), reduction="batchmean")
    return 0.3 * F.cross_entropy(natural, y) + 0.7 * F.cross_entropy(adversarial, y) + 2 * consistency


def gradients(*modules: nn.Module) -> list[Tensor]:
    return [p.grad for module in modules for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_gradients_are_those_of_toggled_flags(groups: int) -> None:
    backbone, head = Toy(groups), nn.Linear(8, 5)
    branch = trained(LowRankBranch(backbone, Pairs(rank=2, targets=TOY)))
    reference = Toggling(backbone, list(branch.updates), head)  # type: ignore[arg-type]
    x, x_adv, y = torch.rand(6, 3, 9, 9), torch.rand(6, 3, 9, 9), torch.arange(6) % 5

    loss = autolora_loss(head(through(backbone, branch, x)), head(backbone(x_adv)), y)
    expected = autolora_loss(reference(x, natural=True), reference(x_adv, natural=False), y)
    torch.autograd.backward(loss)
    torch.autograd.backward(expected)

    assert torch.equal(loss, expected)
    ours, theirs = gradients(backbone, branch, head), gradients(reference.toy, reference.updates, reference.head)
    assert len(ours) == len(theirs) == 7 + 4 + 2
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    torch.testing.assert_close(dict(backbone.named_buffers()), dict(reference.toy.named_buffers()), rtol=0, atol=0)


@pytest.mark.parametrize(("stop", "learns"), [("natural", "backbone"), ("adversarial", "branch")])
def test_each_path_learns_from_its_own_logits(stop: str, learns: str) -> None:
    backbone, head = Toy(), nn.Linear(8, 5)
    branch = trained(LowRankBranch(backbone, Pairs(rank=2, targets=TOY)))
    x, x_adv, y = torch.rand(6, 3, 9, 9), torch.rand(6, 3, 9, 9), torch.arange(6) % 5
    ours, others = (backbone, branch) if learns == "backbone" else (branch, backbone)

    def gradient(stop: str) -> list[Tensor]:
        ours.zero_grad()
        others.zero_grad()
        torch.autograd.backward(autolora_loss(head(through(backbone, branch, x)), head(backbone(x_adv)), y, stop))
        return gradients(ours)

    torch.testing.assert_close(gradient(""), gradient(stop), rtol=0, atol=0)
    assert gradients(others) == []


def test_both_paths_move_the_running_mean_the_branch_first() -> None:
    backbone = Toy()
    branch = trained(LowRankBranch(backbone, Pairs(rank=2, targets=TOY)))
    nn.init.normal_(backbone.bn1.running_mean)  # type: ignore[arg-type]
    x, x_adv = torch.rand(6, 3, 9, 9), torch.rand(6, 3, 9, 9)
    assert backbone.bn1.running_mean is not None and backbone.bn1.num_batches_tracked is not None
    m, conv = backbone.bn1.running_mean.clone(), backbone.conv1
    natural = F.conv2d(x, conv.weight + branch.updates[0](), conv.bias).mean(dim=(0, 2, 3))
    adversarial = conv(x_adv).mean(dim=(0, 2, 3))

    through(backbone, branch, x)
    backbone(x_adv)
    torch.testing.assert_close(backbone.bn1.running_mean, 0.9 * (0.9 * m + 0.1 * natural) + 0.1 * adversarial)
    assert int(backbone.bn1.num_batches_tracked) == 2


@pytest.mark.parametrize("kind", [LowRankBranch, DualNormBranch, FrozenNormBranch])
def test_the_backbone_does_not_notice(kind: type[LowRankBranch] | type[DualNormBranch]) -> None:
    backbone = timm.create_model("resnet20_cifar", pretrained=False, num_classes=0).eval()
    before, printed = deepcopy(backbone.state_dict()), repr(backbone)
    branch = kind(backbone)
    torch.autograd.backward(through(backbone, branch, torch.rand(2, 3, 16, 16)).sum())
    after = backbone.state_dict()
    assert list(after) == list(before) and repr(backbone) == printed
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("kind", [LowRankBranch, DualNormBranch, FrozenNormBranch])
def test_copies_and_state_round_trip(kind: type[LowRankBranch] | type[DualNormBranch]) -> None:
    backbone = timm.create_model("resnet20_cifar", pretrained=False, num_classes=0).eval()
    branch, other, x = kind(backbone), kind(backbone), torch.rand(2, 3, 16, 16)
    for parameter in branch.parameters():
        nn.init.normal_(parameter, std=0.1)
    expected = through(backbone, branch, x)
    assert not torch.equal(through(backbone, other, x), expected)
    other.load_state_dict(branch.state_dict())
    assert torch.equal(through(backbone, other, x), expected)
    assert torch.equal(through(deepcopy(backbone), deepcopy(branch), x), expected)


@pytest.mark.parametrize("name", ["convnext_zepto_rms", "vit_tiny_patch16_224"])
def test_affine_norms_of_a_backbone_without_statistics_are_doubled(name: str) -> None:
    """As many numbers as a backbone has in one-dimensional weights of norms, by the names of its parameters."""
    backbone = timm.create_model(name, pretrained=False, num_classes=0)
    norms = [
        parameter.numel()
        for key, parameter in backbone.named_parameters()
        if "norm" in key or (".downsample.0." in key and parameter.ndim == 1) or "stem.1." in key
    ]
    assert sum(parameter.numel() for parameter in DualNormBranch(backbone).parameters()) == sum(norms) > 0


def test_low_rank_state_is_named_after_the_pairs() -> None:
    branch = LowRankBranch(Toy(), Pairs(targets=TOY))
    assert list(branch.state_dict()) == [f"updates.{i}.lora_{x}" for i in (0, 1) for x in "AB"]


def test_the_frozen_net_uses_its_own_norms_in_eval_mode() -> None:
    backbone = Toy()
    branch, pretrained = FrozenNormBranch(backbone), deepcopy(backbone).eval()
    for _ in range(3):
        backbone(torch.rand(6, 3, 9, 9))  # moves the statistics of the backbone, and not those of the branch
    with torch.no_grad():
        backbone.bn1.weight.mul_(2)
    x = torch.rand(6, 3, 9, 9)
    torch.testing.assert_close(through(backbone, branch, x), pretrained(x), rtol=0, atol=0)
    alone = through(backbone, branch, x[:1])  # eval mode: an image does not depend on the others
    torch.testing.assert_close(alone, through(backbone, branch, x)[:1])
    assert all(module.training for module in backbone.modules())


def test_the_frozen_net_leaves_all_statistics_and_trains_both_affines() -> None:
    backbone = Toy()
    branch, x = FrozenNormBranch(backbone), torch.rand(6, 3, 9, 9)
    buffers = deepcopy((*backbone.buffers(), *branch.buffers()))
    torch.autograd.backward(through(backbone, branch, x).square().sum())
    assert all(torch.equal(a, b) for a, b in zip(buffers, (*backbone.buffers(), *branch.buffers()), strict=True))
    assert backbone.bn1.weight.grad is None and backbone.conv1.weight.grad is not None  # weights are shared
    assert all(parameter.grad is not None for parameter in branch.parameters())
    torch.autograd.backward(backbone(x).square().sum())
    assert backbone.bn1.weight.grad is not None


def test_dual_norms_move_their_own_statistics_only() -> None:
    backbone = Toy()
    branch, expected, x = DualNormBranch(backbone), deepcopy(backbone), torch.rand(6, 3, 9, 9)
    own = deepcopy(list(backbone.buffers()))
    torch.testing.assert_close(through(backbone, branch, x), expected(x), rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(own, backbone.buffers(), strict=True))
    torch.testing.assert_close(list(branch.buffers()), list(expected.buffers()), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [DualNormBranch, FrozenNormBranch, SparingNormBranch])
def test_norm_branches_need_a_norm(kind: type[Branch]) -> None:
    with pytest.raises(InputError, match="has no"):
        kind(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)))


def test_a_branch_that_spares_the_statistics_normalises_with_its_batch_and_leaves_no_trace() -> None:
    backbone, x = Toy(), torch.rand(6, 3, 9, 9)
    expected, before = deepcopy(backbone)(x), deepcopy(dict(backbone.named_buffers()))
    out = through(backbone, SparingNormBranch(backbone), x)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    torch.testing.assert_close(dict(backbone.named_buffers()), before, rtol=0, atol=0)
    backbone(x)
    assert not torch.equal(backbone.bn1.running_mean, before["bn1.running_mean"])  # type: ignore[arg-type]


def test_joined_branches_run_with_the_tensors_of_all_and_the_last_one_wins() -> None:
    backbone, x = Toy(), torch.rand(6, 3, 9, 9)
    lowrank, dual = trained(LowRankBranch(backbone, Pairs(rank=1, targets=TOY))), DualNormBranch(backbone)
    by_hand = deepcopy(backbone)
    for norm, own in zip((by_hand.bn1, by_hand.bn2), dual.norms, strict=True):
        assert isinstance(own, nn.BatchNorm2d)
        nn.init.normal_(own.weight, mean=2)
        norm.load_state_dict(own.state_dict())
    with torch.no_grad():
        for conv, update in zip((by_hand.conv1, by_hand.conv2), lowrank.updates, strict=True):
            conv.weight += update()
    joined = JoinedBranch(lowrank, dual)
    torch.testing.assert_close(through(backbone, joined, x), by_hand(x))
    torch.autograd.backward(through(backbone, joined, x).sum())
    assert all(p.grad is None for p in backbone.parameters())
    assert all(p.grad is not None for p in joined.parameters())


def test_joined_branches_hold_the_modes_of_all_parts() -> None:
    backbone, x = Toy(), torch.rand(6, 3, 9, 9)
    joined = JoinedBranch(trained(LowRankBranch(backbone, Pairs(targets=TOY))), FrozenNormBranch(backbone))
    together, alone = (
        through(backbone, joined, x),
        torch.cat([through(backbone, joined, x[i : i + 1]) for i in range(6)]),
    )
    torch.testing.assert_close(together, alone)  # stored statistics: no image sees another
    assert backbone.training and backbone.bn1.training


def test_without_batch_norm_the_frozen_net_has_layer_norms_of_its_own_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.LayerNorm(6), nn.Linear(6, 4))
    branch = FrozenNormBranch(backbone)
    assert branch.replaced == ("2",) and "no batch norm" in caplog.text
    torch.autograd.backward(through(backbone, branch, torch.rand(2, 3, 2, 2)).sum())
    assert {name for name, p in backbone.named_parameters() if p.grad is None} == {"2.weight", "2.bias"}
    assert all(p.grad is not None for p in branch.parameters())


def test_evaluating_restores_each_modules_own_mode() -> None:
    toy, dropout = Toy(), nn.Dropout()
    model = nn.Sequential(toy, dropout, nn.Linear(8, 5))
    toy.bn1.eval()
    dropout.eval()
    found = {name: module.training for name, module in model.named_modules()}
    assert set(found.values()) == {True, False}
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        with evaluating(toy):
            pass
        assert not any(module.training for module in model.modules())
    assert {name: module.training for name, module in model.named_modules()} == found
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert {name: module.training for name, module in model.named_modules()} == found


def test_a_branch_follows_the_backbone_to_another_type() -> None:
    backbone = Toy().double()
    branch = LowRankBranch(Toy(), Pairs(rank=2, targets=TOY)).double()
    assert through(backbone, branch, torch.rand(2, 3, 9, 9, dtype=torch.float64)).dtype == torch.float64
