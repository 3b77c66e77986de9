"""Every method on a ResNet, a transformer and a ConvNeXt, through the same loop and with no word about them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from autolora.attacks import PGD
from autolora.methods import METHODS, AutoLoRa, Batch, LoFT, Method, TwinsAT
from autolora.models import LowRankBranch, RobustModel, build_model
from autolora.models.backbones import split
from autolora.models.bundle import load_bundle, save_bundle
from autolora.models.creation import create
from autolora.models.lowrank import LowRankUpdate
from autolora.schedules import Constant
from autolora.threat import ThreatModel
from autolora.training import Checkpoints, fit

SIZE = 32
SMALL: dict[str, dict[str, Any]] = {  # families by a network of each, and what makes it shallow
    "resnet20_cifar": {},
    "vit_tiny_patch16_224": {"img_size": SIZE, "depth": 2},
    "convnext_atto": {"depths": (1, 1, 1, 1)},
    "swin_tiny_patch4_window7_224": {
        **{"img_size": SIZE, "window_size": 2, "embed_dim": 8},
        **{"depths": (2, 1), "num_heads": (2, 2)},
    },
}
TRANSFORMERS = ["vit_small_patch16_224", "deit_tiny_patch16_224", "deit_small_patch16_224"]
PGD_1 = PGD(ThreatModel("8/255"), steps=1)


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def network(name: str, size: int) -> RobustModel:
    return build_model(name, classes=3, weights="none", image_size=size)


def shallow(name: str) -> RobustModel:
    return split(create(name, {"pretrained": False, **SMALL[name]}), classes=3, image_size=SIZE)


def images(size: int, count: int = 4) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 3, size, size), torch.arange(count) % 3


def train(model: RobustModel, method: Method, folder: Path) -> None:
    data: DataLoader[tuple[Tensor, Tensor]] = DataLoader(TensorDataset(*images(SIZE)), 4)  # type: ignore[arg-type]
    fit(
        model,
        method,
        data,
        data,
        Constant(0.05),
        Accelerator(cpu=True),
        epochs=2,  # the factor A of a pair has no gradient before B has moved
        val_attack=PGD_1,
        checkpoints=Checkpoints(folder),
        progress=False,
    )


@pytest.mark.parametrize("backbone", ["resnet20_cifar", "vit_tiny_patch16_224", "convnext_atto"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_every_kind_of_backbone_and_ships_a_plain_one(
    name: str, backbone: str, tmp_path: Path
) -> None:
    model, fresh = shallow(backbone), shallow(backbone)
    fresh.load_state_dict(model.state_dict())
    train(model, METHODS[name](PGD_1), tmp_path / "checkpoints")

    assert model.state_dict().keys() == fresh.state_dict().keys()
    assert all(p.isfinite().all() and p.requires_grad for p in model.parameters())
    moved = {key.split(".")[0] for key, p in fresh.named_parameters() if not torch.equal(p, model.state_dict()[key])}
    assert moved == ({"head"} if name in ("slf", "alf") else {"backbone", "head"})

    save_bundle(model.eval(), tmp_path / "model", ["a", "b", "c"], {})
    x, _ = images(SIZE)
    with torch.no_grad():
        torch.testing.assert_close(load_bundle(tmp_path / "model")(x), model(x))


def branch_of(model: RobustModel) -> LowRankBranch:
    branch = model.branches["natural"]
    assert isinstance(branch, LowRankBranch)
    return branch


@pytest.mark.parametrize("backbone", TRANSFORMERS)
def test_autolora_on_transformers_adapts_attention_and_mlp_and_all_pairs_learn(backbone: str) -> None:
    method, model = AutoLoRa(PGD_1), network(backbone, 32)
    method.prepare(model)
    branch = branch_of(model)
    assert {name.rpartition(".")[2] for name in branch.adapted} == {"qkv", "proj", "fc1", "fc2"}
    assert len(branch.adapted) == 4 * 12
    x, y = images(32, count=2)
    torch.autograd.backward(method.loss(model, Batch(x, y, x))["natural"])
    for update in branch.updates:
        assert isinstance(update, LowRankUpdate) and update.lora_B.grad is not None and update.lora_B.grad.any()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())


@pytest.mark.parametrize(
    ("backbone", "size", "expected"),
    [
        ("vit_small_patch16_224", 32, {"qkv", "proj", "fc1", "fc2"}),  # proj: of the attention, and of the patches
        ("deit_small_patch16_224", 32, {"qkv", "proj", "fc1", "fc2"}),
        ("convnext_atto", 32, {"0", "1", "conv_dw", "fc1", "fc2"}),
        ("swin_tiny_patch4_window7_224", 64, {"qkv", "proj", "fc1", "fc2", "reduction"}),
    ],
)
def test_loft_adapts_every_convolution_and_linear_layer(backbone: str, size: int, expected: set[str]) -> None:
    method, model = LoFT(PGD_1), network(backbone, size)
    layers = {name for name, m in model.backbone.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    method.prepare(model)
    assert set(method.adapted) == layers and {name.rpartition(".")[2] for name in layers} == expected
    x, y = images(size, count=2)
    losses = method.loss(model, Batch(x, y, (x + 0.03).clamp(0, 1)))
    torch.autograd.backward(torch.stack(list(losses.values())).sum())
    updates = [module for module in model.backbone.modules() if isinstance(module, LowRankUpdate)]
    assert len(updates) == len(layers)
    assert all(update.lora_B.grad is not None and update.lora_B.grad.any() for update in updates)


def test_swin_trains_too(tmp_path: Path) -> None:
    model = shallow("swin_tiny_patch4_window7_224")
    train(model, AutoLoRa(PGD_1), tmp_path)
    assert all(p.isfinite().all() for p in model.parameters())


def test_twins_on_a_transformer_says_that_there_are_no_statistics_to_freeze(
    caplog: pytest.LogCaptureFixture,
) -> None:
    TwinsAT(PGD_1).prepare(network("vit_tiny_patch16_224", 32))
    assert "no statistics to freeze" in caplog.text


def test_no_layer_is_skipped_at_random() -> None:
    """Swin has stochastic depth by default: natural and adversarial pass would skip different layers."""
    model, (x, _) = network("swin_tiny_patch4_window7_224", 64), images(64, count=2)
    torch.testing.assert_close(model.train()(x), model(x))
