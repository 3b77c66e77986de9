"""The low-rank updates against loralib's formula as a loop, PEFT itself, and the counts in the papers' tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import peft
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.lowrank import Init, LowRankUpdate, Pairs, Style
from autolora.models.resnet_cifar import CifarResNet
from autolora.models.targets import Targets

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "1x1": {"kernel_size": 1},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "grouped": {"kernel_size": 3, "groups": 2},
    "depthwise": {"kernel_size": 5, "groups": 4},
    "biased": {"kernel_size": 7, "bias": True},
}


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def conv(kind: str) -> nn.Conv2d:
    return nn.Conv2d(4, 8, **{"bias": False} | CONVOLUTIONS[kind])


def trained(update: LowRankUpdate) -> LowRankUpdate:
    """Give B random entries of moderate size, as training would."""
    nn.init.normal_(update.lora_B, std=0.1)
    return update


def cifar_resnet18() -> nn.Module:
    model = timm.create_model("resnet18", pretrained=False, num_classes=0)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    return model


def naive_loralib(a: Tensor, b: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Multiply B and A entry by entry, and write the rows of the product one after the other into the weight."""
    a, b, entries = a.detach(), b.detach(), []
    for row in range(b.shape[0]):
        for column in range(a.shape[1]):
            entries.append(sum(float(b[row, i]) * float(a[i, column]) for i in range(a.shape[0])))
    weight = torch.empty(shape)
    for entry, index in zip(entries, product(*map(range, shape)), strict=True):
        weight[index] = entry
    return weight


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_loralib_is_the_product_read_row_by_row(kind: str) -> None:
    layer = conv(kind)
    update = trained(Pairs(rank=2, style="loralib", lora_alpha=3.0).update(layer))
    k, out, groups = layer.kernel_size[0], layer.out_channels, layer.groups
    assert update.lora_A.shape == (2 * k, 4 * k) and update.lora_B.shape == (out // groups * k, 2 * k)
    expected = 3.0 / 2 * naive_loralib(update.lora_A, update.lora_B, tuple(layer.weight.shape))
    torch.testing.assert_close(update(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [*CONVOLUTIONS, "oblong"])
def test_peft_merges_to_the_two_convolutions(kind: str) -> None:
    layer = nn.Conv2d(4, 8, (1, 3), stride=(2, 1), bias=False) if kind == "oblong" else conv(kind)
    layer = layer.double()
    update = trained(Pairs(rank=2, style="peft", lora_alpha=3.0).update(layer))
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    inner = F.conv2d(x, update.lora_A, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    outer = F.conv2d(inner, update.lora_B, groups=layer.groups)
    merged = F.conv2d(x, layer.weight + update(), layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    torch.testing.assert_close(merged, layer(x) + 3.0 / 2 * outer)


@pytest.mark.parametrize("kind", ["3x3", "1x1", "strided", "dilated", "biased", "linear"])
def test_peft_equals_the_peft_package(kind: str) -> None:
    layer = nn.Linear(4, 8) if kind == "linear" else conv(kind)
    update = trained(Pairs(rank=2, style="peft", lora_alpha=3.0).update(layer))
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["0"])  # type: ignore[arg-type, unused-ignore]
    model = peft.get_peft_model(nn.Sequential(layer), config)
    state = {"base_model.model.0.lora_A.weight": update.lora_A, "base_model.model.0.lora_B.weight": update.lora_B}
    loaded: Any = peft.set_peft_model_state_dict(model, state)
    assert not loaded.unexpected_keys
    expected = layer.weight.detach().clone() + update().detach()
    merged = model.merge_and_unload().get_parameter("0.weight")
    assert not torch.equal(merged, expected - update())
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("style", ["loralib", "peft"])
def test_linear_is_plain_lora(style: Style) -> None:
    layer = nn.Linear(5, 7)
    update = trained(Pairs(rank=3, style=style).update(layer))
    assert update.lora_A.shape == (3, 5) and update.lora_B.shape == (7, 3) and update.scale == 1 / 3
    x = torch.randn(2, 5)
    expected = layer(x) + (x @ update.lora_A.T) @ update.lora_B.T / 3
    torch.testing.assert_close(F.linear(x, layer.weight + update(), layer.bias), expected)


@pytest.mark.parametrize("style", ["loralib", "peft"])
@pytest.mark.parametrize("init", ["normal", "kaiming"])
def test_the_update_starts_at_zero_and_b_gets_a_gradient(style: Style, init: Init) -> None:
    update = Pairs(style=style, init=init).update(conv("3x3"))
    assert torch.equal(update(), torch.zeros(8, 4, 3, 3))
    update().sum().backward()
    assert update.lora_B.grad is not None and update.lora_B.grad.abs().sum() > 0


def test_initial_distributions() -> None:
    layer = nn.Conv2d(64, 64, 3)
    assert float(Pairs().update(layer).lora_A.detach().std()) == pytest.approx(1, abs=0.05)
    assert float(Pairs(sigma=0.1).update(layer).lora_A.detach().std()) == pytest.approx(0.1, abs=0.005)
    # U(-b, b) with b = sqrt(6 / ((1 + 5) fan_in)), for PEFT's first convolution: fan_in = 64 * 9
    a = Pairs(style="peft", init="kaiming").update(layer).lora_A.detach()
    assert float(a.abs().max()) == pytest.approx(1 / math.sqrt(64 * 9), rel=1e-2)


def test_the_update_has_the_type_of_the_weight() -> None:
    assert Pairs().update(nn.Conv2d(4, 8, 3, dtype=torch.float64))().dtype == torch.float64


@pytest.mark.parametrize("rank", [1, 2, 4, 8, 16])
def test_resnet18_counts_of_the_papers(rank: int) -> None:
    model = timm.create_model("resnet18", pretrained=False)
    adapted = sum(Pairs(rank, "loralib", "blocks").sizes(model).values())
    assert adapted == 66_432 * rank
    small_stem = cifar_resnet18()
    assert sum(Pairs(rank, "peft", "all").sizes(small_stem).values()) == 35_803 * rank
    assert sum(Pairs(rank, "loralib", "blocks").sizes(small_stem).values()) == 66_432 * rank


@pytest.mark.parametrize(
    ("name", "style", "targets", "expected"),
    [
        ("resnet18", "loralib", "last-block", 276_480),
        ("resnet50", "loralib", "blocks", 875_520),
        ("resnet50", "loralib", "all", 901_784),
        ("resnet50", "loralib", "last-block", 215_040),
        ("resnet50", "peft", "blocks", 633_856),
        ("resnet50", "peft", "all", 635_544),
        ("vit_small_patch16_224", "loralib", "blocks", 589_824),
        ("deit_small_patch16_224", "peft", "blocks", 589_824),
        ("deit_tiny_patch16_224", "peft", "blocks", 294_912),
        ("vit_base_patch16_224", "peft", "blocks", 1_179_648),
        ("vit_small_patch16_224", "peft", "all", 589_824 + 8 * (768 + 384)),
    ],
)
def test_counts_at_rank_8(name: str, style: Style, targets: Targets, expected: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    assert sum(Pairs(8, style, targets).sizes(model).values()) == expected


@pytest.mark.parametrize(("rank", "percent"), [(2, 1.30), (4, 2.49), (8, 4.87), (16, 9.62)])
def test_table_4_of_autolora(rank: int, percent: float) -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet18", pretrained=False, num_classes=10)
    norms = sum(p.numel() for name, p in model.named_parameters() if "bn" in name)
    counted = sum(Pairs(rank).sizes(model).values()) + norms + 5_130
    assert round(100 * counted / sum(p.numel() for p in model.parameters()), 2) == percent


@pytest.mark.parametrize("rank", [2, 8])
def test_loft_count_equals_what_peft_prints(rank: int) -> None:
    model = cifar_resnet18()
    sizes = Pairs(rank, "peft", "all").sizes(model)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=rank, target_modules=list(sizes)))
    assert wrapped.get_nb_trainable_parameters()[0] == sum(sizes.values())


@pytest.mark.parametrize("style", ["loralib", "peft"])
def test_sizes_are_those_of_the_updates(style: Style) -> None:
    model = timm.create_model("efficientnet_b0", pretrained=False, num_classes=0)  # depthwise convolutions
    modules = dict(model.named_modules())
    for name, size in Pairs(3, style).sizes(model).items():
        update = Pairs(3, style).update(modules[name])
        assert size == sum(p.numel() for p in update.parameters())
        assert update().shape == modules[name].weight.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank=0"),
        ({"style": "lora"}, "loralib or peft"),
        ({"init": "zeros"}, "normal or kaiming"),
        ({"sigma": 0.0}, "must be positive"),
        ({"lora_alpha": float("nan")}, "must be positive"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pairs(**arguments)


def test_loralib_refuses_an_oblong_kernel() -> None:
    with pytest.raises(InputError, match="use style='peft'"):
        Pairs(style="loralib").update(nn.Conv2d(4, 8, (1, 3)))


def test_updates_by_name_in_the_order_of_the_backbone() -> None:
    model = CifarResNet(8, width=4)
    updates = Pairs(rank=2, targets=["layer3.0.conv1", "conv1"], style="peft").updates(model)
    weights = {name: parameter for name, parameter in model.named_parameters() if name.endswith("weight")}
    assert list(updates) == ["conv1", "layer3.0.conv1"]
    assert all(update().shape == weights[f"{name}.weight"].shape for name, update in updates.items())


def test_a_rank_that_is_a_slip_is_refused_before_anything_is_allocated() -> None:
    """Pairs of a million columns would not fit into memory; 8, the default, is much for four channels and no slip."""
    model = CifarResNet(8, width=4)
    for rank in (8, 16):
        assert Pairs(rank=rank, targets="all").updates(model)
    for targets, full in (("all", 16), (["conv1"], 4)):
        with pytest.raises(
            InputError, match=f"more than 10 times the weights .* has a rank above {full}; the papers use"
        ):
            Pairs(rank=10**6, targets=targets).updates(model)
