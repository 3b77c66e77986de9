"""Which layers get a low-rank update, in networks whose stems and stages are arranged differently."""

from __future__ import annotations

import pytest
import timm
import torch

from autolora.errors import InputError
from autolora.models.resnet_cifar import CifarResNet
from autolora.models.targets import Targets, adapted_layers


def test_blocks_leave_out_stem_and_classifier() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet18", pretrained=False)
        vit = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    blocks, everything = adapted_layers(model, "blocks"), adapted_layers(model, "all")
    assert len(blocks) == 19 and "layer2.0.downsample.0" in blocks
    assert everything == ("conv1", *blocks)
    per_block = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert adapted_layers(vit) == tuple(f"blocks.{i}.{name}" for i in range(12) for name in per_block)


def test_last_block_is_what_the_high_resolution_release_reaches() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet18", pretrained=False)
        deep_stem = timm.create_model("resnet50d", pretrained=False)  # its stem is a Sequential of convolutions
    expected = tuple(f"layer{stage}.1.conv{i}" for stage in (1, 2, 3, 4) for i in (1, 2))
    assert adapted_layers(model, "last-block") == expected
    assert len(adapted_layers(deep_stem, "last-block")) == 12


@pytest.mark.parametrize(
    ("name", "stages"),
    [("convnext_atto", [2, 2, 6, 2]), ("efficientnet_b0", [1, 2, 2, 3, 3, 4, 1]), ("mobilenetv3_small_050", [1, 2, 3])],
)
def test_last_block_of_each_stage_where_one_module_holds_the_stages(name: str, stages: list[int]) -> None:
    """The depths are the papers'; of MobileNetV3's first three stages."""
    backbone = timm.create_model(name, pretrained=False, num_classes=0)
    where = "stages.{}.blocks.{}." if name.startswith("convnext") else "blocks.{}.{}."
    chosen = adapted_layers(backbone, "last-block")
    for stage, depth in enumerate(stages):
        assert any(layer.startswith(where.format(stage, depth - 1)) for layer in chosen)
        assert not any(layer.startswith(where.format(stage, block)) for layer in chosen for block in range(depth - 1))


def test_last_block_leaves_out_the_shortcut_of_a_stage_of_one_block() -> None:
    model = timm.create_model("resnet10t", pretrained=False)
    assert adapted_layers(model, "last-block") == tuple(f"layer{s}.0.conv{i}" for s in (1, 2, 3, 4) for i in (1, 2))


def test_named_targets_come_in_the_order_of_the_backbone() -> None:
    model = CifarResNet(8, width=4)
    assert adapted_layers(model, ["layer2.0.conv1", "conv1", "conv1"]) == ("conv1", "layer2.0.conv1")


def test_several_stems() -> None:
    model = CifarResNet(8, width=4, num_classes=0)
    model.pretrained_cfg = {"first_conv": ("conv1", "layer1.0.conv1"), "classifier": None}  # type: ignore[assignment]
    assert adapted_layers(model)[0] == "layer1.0.conv2"


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["layer1.0.conv3"], "did you mean layer1.0.conv"),
        (["bn1"], "'bn1' is not a convolution or linear layer"),
        ([], "selects no layer"),
        ("block", "use blocks, all, last-block or a list"),
        ("blocks", "give the layers to adapt as a list"),
    ],
)
def test_targets_that_cannot_be_met(targets: Targets, message: str) -> None:
    with pytest.raises(InputError, match=message):
        adapted_layers(CifarResNet(8, width=4), targets)  # built without timm's factory: no pretrained_cfg
