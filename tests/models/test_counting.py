"""Counts and ratios against the papers' tables, PEFT's own count, a real branch, and counts by hand."""

from __future__ import annotations

from functools import cache

import peft
import pytest
import torch
from torch import nn

from autolora.errors import InputError
from autolora.models import Architecture, LowRankBranch, Normalize, RobustModel, build_model
from autolora.models.counting import build_on_meta, count_parameters
from autolora.models.lowrank import Pairs, Style
from autolora.models.targets import Targets, adapted_layers

RANKS = (2, 4, 8, 16)
model_of = cache(build_on_meta)


# the papers' tables


@pytest.mark.parametrize(("rank", "percent"), [(2, 1.30), (4, 2.49), (8, 4.87), (16, 9.62)])
def test_table_4_of_autolora(rank: int, percent: float) -> None:
    counts = count_parameters(model_of("resnet18", classes=10), rank)
    assert round(counts.table4_percent, 2) == percent
    assert counts.lora_params == 66_432 * rank
    assert (counts.fe_params, counts.total_params, counts.bn_params) == (11_176_512, 11_181_642, 7_808)


@pytest.mark.parametrize(
    ("rank", "pairs", "both", "percent"),
    [
        (2, 71_606, 11_240_438, 0.637),
        (4, 143_212, 11_312_044, 1.266),
        (8, 286_424, 11_455_256, 2.500),
        (16, 572_848, 11_741_680, 4.879),
    ],
)
def test_table_4_of_loft(rank: int, pairs: int, both: int, percent: float) -> None:
    counts = count_parameters(model_of("resnet18_cifar", classes=10), rank, "peft")
    assert (counts.lora_params, counts.lora_params + counts.fe_params) == (pairs, both)
    assert round(counts.lora_over_total_percent, 3) == percent


def test_peft_prints_the_same() -> None:
    model = build_model("resnet18_cifar", classes=10, weights="none")
    layers = list(adapted_layers(model.backbone, "all"))
    counts = count_parameters(model, 2, "peft")
    wrapped = peft.get_peft_model(model.backbone, peft.LoraConfig(r=2, target_modules=layers))  # type: ignore[arg-type, unused-ignore]
    trainable, both = wrapped.get_nb_trainable_parameters()
    assert counts.lora_params == trainable
    assert counts.lora_over_total_percent == pytest.approx(100 * trainable / both)


@pytest.mark.parametrize(
    ("name", "extractor", "style", "targets", "per_rank", "percents"),
    [
        ("resnet50", 23_508_032, "loralib", "blocks", 109_440, (0.931, 1.862, 3.724, 7.449)),
        ("resnet50", 23_508_032, "loralib", "all", 112_723, (0.959, 1.918, 3.836, 7.672)),
        ("resnet50", 23_508_032, "peft", "blocks", 79_232, (0.674, 1.348, 2.696, 5.393)),
        ("resnet50", 23_508_032, "peft", None, 79_443, (0.676, 1.352, 2.704, 5.407)),
        ("resnet18", 11_176_512, "loralib", None, 66_432, (1.189, 2.378, 4.755, 9.510)),
        ("resnet18", 11_176_512, "peft", None, 35_923, (0.643, 1.286, 2.571, 5.143)),
        ("resnet18_cifar", 11_168_832, "loralib", None, 66_432, (1.190, 2.379, 4.758, 9.517)),
        ("resnet18_cifar", 11_168_832, "peft", None, 35_803, (0.641, 1.282, 2.564, 5.129)),
        ("vit_small_patch16_224", 21_665_664, "loralib", None, 73_728, (0.681, 1.361, 2.722, 5.445)),
        ("vit_base_patch16_224", 85_798_656, "loralib", None, 147_456, (0.344, 0.687, 1.375, 2.750)),
        ("deit_tiny_patch16_224", 5_524_416, "loralib", None, 36_864, (1.335, 2.669, 5.338, 10.677)),
    ],
)
def test_other_backbones(
    name: str, extractor: int, style: Style, targets: Targets | None, per_rank: int, percents: tuple[float, ...]
) -> None:
    for rank, percent in zip(RANKS, percents, strict=True):
        counts = count_parameters(model_of(name, classes=10), rank, style, targets)
        assert counts.fe_params == extractor
        assert counts.lora_params == per_rank * rank
        assert round(counts.lora_over_fe_percent, 3) == percent


@pytest.mark.parametrize(
    ("name", "word", "chosen", "expected"),
    [("resnet50", "downsample", False, 829_952), ("vit_small_patch16_224", "attn", True, 221_184)],
)
def test_layers_by_name(name: str, word: str, chosen: bool, expected: int) -> None:
    """Without the shortcuts, and attention alone, at rank 8."""
    model = model_of(name, classes=10)
    layers = [layer for layer in adapted_layers(model.backbone) if (word in layer) is chosen]
    assert count_parameters(model, 8, "loralib", layers).lora_params == expected


# what is counted


@pytest.mark.parametrize("style", ["loralib", "peft"])
@pytest.mark.parametrize("targets", ["blocks", "all", "last-block"])
def test_a_real_branch_has_as_many_parameters(style: Style, targets: Targets) -> None:
    model = build_model("resnet20_cifar", classes=4, weights="none")
    expected = count_parameters(model, 3, style, targets)
    model.branches["natural"] = LowRankBranch(model.backbone, Pairs(3, style, targets))
    pairs = sum(p.numel() for p in model.branches.parameters())
    assert expected.lora_params == pairs
    assert expected.total_params == sum(p.numel() for p in model.parameters()) - pairs
    assert count_parameters(model, 3, style, targets) == expected  # its branch is none of the model's own parameters


def test_each_style_has_the_targets_of_its_paper() -> None:
    model = model_of("resnet18_cifar", classes=10)
    assert count_parameters(model, 8, "loralib") == count_parameters(model, 8, "loralib", "blocks")
    assert count_parameters(model, 8, "peft") == count_parameters(model, 8, "peft", "all")
    assert count_parameters(model, 8, "peft") != count_parameters(model, 8, "peft", "blocks")


def test_by_hand() -> None:
    """Three norms of different kinds and names, and a layer that is called bn and is none."""
    backbone = nn.Sequential()
    backbone.add_module("conv1", nn.Conv2d(3, 4, 3))  # 112 parameters; loralib pairs at rank 2: 2 * 3 * 3 * (3 + 4)
    backbone.add_module("bn1", nn.BatchNorm2d(4))  # 8
    backbone.add_module("bn_groups", nn.GroupNorm(2, 4))  # 8
    backbone.add_module("norm", nn.BatchNorm2d(4))  # 8, under another name
    backbone.add_module("bn_mixed", nn.Conv2d(4, 4, 1))  # 20; pairs 2 * (4 + 4)
    architecture = Architecture("none", "fc", (3, 8, 8))
    model = RobustModel(Normalize([0.5] * 3, [0.5] * 3), backbone, nn.Linear(4, 5), architecture)  # head 25
    counts = count_parameters(model, 2, "loralib", "all")
    assert (counts.fe_params, counts.total_params, counts.bn_params) == (156, 181, 16)
    assert counts.lora_params == 126 + 16
    assert counts.lora_over_fe_percent == pytest.approx(100 * 142 / 156)
    assert counts.lora_over_total_percent == pytest.approx(100 * 142 / 298)
    assert counts.table4_percent == pytest.approx(100 * (142 + 16 + 25) / 181)


def test_more_classes_change_the_head_alone() -> None:
    ten, hundred = (count_parameters(model_of("resnet18", classes=classes)) for classes in (10, 100))
    assert hundred.total_params - ten.total_params == 90 * 513
    assert (hundred.lora_over_fe_percent, hundred.lora_over_total_percent) == (
        ten.lora_over_fe_percent,
        ten.lora_over_total_percent,
    )


def test_a_transformer_for_smaller_images_has_fewer_positions() -> None:
    full, small = (build_on_meta("deit_tiny_patch16_224", classes=10, image_size=size) for size in (None, 32))
    assert small.architecture.input_size == (3, 32, 32)
    assert count_parameters(full).fe_params - count_parameters(small).fe_params == (14**2 - 2**2) * 192
    assert count_parameters(full).lora_params == count_parameters(small).lora_params


def test_nothing_is_allocated() -> None:
    model = build_on_meta("packaged", classes=10)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert torch.empty(1).device.type == "cpu"
    assert count_parameters(model) == count_parameters(build_model("packaged", classes=10))


# what cannot be counted


@pytest.mark.parametrize(
    ("rank", "style", "targets", "message"),
    [
        (0, "loralib", None, "rank=0"),
        (8, "lora", None, "loralib or peft"),
        (8, "lora", "all", "loralib or peft"),
        (8, "peft", "block", "blocks, all, last-block"),
    ],
)
def test_arguments_that_cannot_work(rank: int, style: Style, targets: Targets | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        count_parameters(model_of("resnet18_cifar", classes=10), rank, style, targets)


def test_a_model_without_layers_to_adapt() -> None:
    architecture = Architecture("none", "fc", (3, 8, 8))
    model = RobustModel(Normalize([0.5] * 3, [0.5] * 3), nn.BatchNorm2d(3), nn.Linear(3, 2), architecture)
    with pytest.raises(InputError, match="selects no layer of BatchNorm2d"):
        count_parameters(model, 8, "peft")


def test_unknown_model() -> None:
    with pytest.raises(InputError, match="'resnet18_cifr' is unknown to timm; did you mean resnet18_cifar"):
        build_on_meta("resnet18_cifr", classes=10)
