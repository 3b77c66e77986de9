"""ResNets with a CIFAR stem against timm's own layers behind a stem written out, and what ships of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolora.models import RobustModel, build_model
from autolora.models.bundle import load_bundle, save_bundle

PAIRS = [("resnet18_cifar", "resnet18"), ("resnet34_cifar", "resnet34"), ("resnet50_cifar", "resnet50")]


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def resnet18() -> RobustModel:
    """The model with every batch norm away from its start, at which the last ones of the blocks are silent."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("resnet18_cifar", classes=3, weights="none")
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                    tensor.uniform_(0.5, 1.5)
    return model.eval()


def on_meta(name: str, **arguments: Any) -> Any:
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, **arguments)


@pytest.mark.parametrize(("name", "original"), PAIRS)
def test_only_the_kernel_of_the_stem_differs_from_timm(name: str, original: str) -> None:
    ours, theirs = (
        {key: tuple(tensor.shape) for key, tensor in on_meta(n, num_classes=10).state_dict().items()}
        for n in (name, original)
    )
    assert list(ours) == list(theirs)
    assert {key for key in ours if ours[key] != theirs[key]} == {"conv1.weight"}
    assert ours["conv1.weight"] == (64, 3, 3, 3)


def test_a_feature_extractor_of_11168832_parameters() -> None:
    extractor = on_meta("resnet18_cifar", num_classes=0)
    assert sum(p.numel() for p in extractor.parameters()) == 11_168_832


def reference_features(backbone: nn.Module, x: Tensor) -> Tensor:
    """A stem of full resolution by hand, then the stages of timm's ResNet-18 with the same weights."""
    state = backbone.state_dict()
    timms = timm.create_model("resnet18", pretrained=False, num_classes=0).eval()
    timms.load_state_dict({key: tensor for key, tensor in state.items() if key != "conv1.weight"}, strict=False)
    x = F.conv2d(x, state["conv1.weight"], bias=None, stride=1, padding=1)
    assert isinstance(timms.bn1, nn.Module)
    x = F.relu(timms.bn1(x))
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        x = timms.get_submodule(stage)(x)
    return x


@torch.no_grad()
def test_network_is_timms_behind_another_stem(resnet18: RobustModel) -> None:
    x = torch.randn(2, 3, 32, 32)
    expected = reference_features(resnet18.backbone, x)
    assert expected.shape == (2, 512, 4, 4)
    backbone: Any = resnet18.backbone
    torch.testing.assert_close(backbone.forward_features(x), expected)
    torch.testing.assert_close(backbone(x), expected.mean((2, 3)))


@torch.no_grad()
def test_images_are_normalised_as_cifar_is(resnet18: RobustModel) -> None:
    x = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    normalised = (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(resnet18(x), resnet18.head(resnet18.backbone(normalised)))
    assert resnet18(x).shape == (2, 3)


@torch.no_grad()
def test_what_ships_gives_the_same_logits(resnet18: RobustModel, tmp_path: Path) -> None:
    save_bundle(resnet18, tmp_path / "model", ["ant", "bee", "wasp"], {})
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(load_bundle(tmp_path)(x), resnet18(x), rtol=0, atol=0)
    again = build_model(str(tmp_path), classes=2).eval()  # a backbone to start from
    torch.testing.assert_close(again.backbone(again.normalize(x)), resnet18.backbone(resnet18.normalize(x)))


def test_the_stem_starts_as_timms_convolutions_do() -> None:
    """Normal with variance 2 / fan_out (He et al., 2015)."""
    weight = timm.create_model("resnet18_cifar", pretrained=False).get_parameter("conv1.weight")
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.08)


def test_reported_reductions_are_those_of_the_maps() -> None:
    model = on_meta("resnet18_cifar", features_only=True)
    maps = model(torch.zeros(1, 3, 32, 32, device="meta"))
    assert [32 // x.shape[-1] for x in maps] == model.feature_info.reduction() == [1, 1, 2, 4, 8]


def test_other_channels_and_classes() -> None:
    model = on_meta("resnet18_cifar", in_chans=1)
    assert model(torch.zeros(2, 1, 32, 32, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("name", [name for name, _ in PAIRS])
def test_timm_knows_them(name: str) -> None:
    assert timm.is_model(name)
    config = on_meta(name).pretrained_cfg
    assert (config["input_size"], config["pool_size"]) == ((3, 32, 32), (4, 4))
    assert (config["first_conv"], config["classifier"]) == ("conv1", "fc")
