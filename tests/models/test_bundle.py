"""What a run ships is timm's own: same keys, same logits, without a line of this package on the other side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models._hub import save_for_hf
from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models import LowRankBranch, RobustModel, build_model
from autolora.models.bundle import bundle_classes, load_bundle, save_bundle
from autolora.models.lowrank import Pairs

CLASSES = ["ant", "bee", "wasp"]
MODELS = [("resnet20_cifar", 32), ("resnet18", 32), ("vit_tiny_patch16_224", 32), ("convnext_atto", 32)]


def built(name: str, size: int) -> RobustModel:
    """A small model with statistics that differ from those of a new one."""
    torch.manual_seed(0)
    model = build_model(name, classes=len(CLASSES), weights="none", image_size=size)
    model.train()
    with torch.no_grad():
        model(torch.rand(8, 3, size, size))
    return model.eval()


def logits_by_timm(folder: Path, x: Tensor) -> Tensor:
    """Load and apply the model as a stranger would, by what the folder says about itself."""
    config = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return model((x - mean) / std)


@pytest.mark.parametrize(("name", "size"), MODELS)
def test_timm_gives_the_same_logits(tmp_path: Path, name: str, size: int) -> None:
    model, x = built(name, size), torch.rand(2, 3, size, size)
    save_bundle(model, tmp_path / "model", CLASSES, {})
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(logits_by_timm(tmp_path / "model", x), expected)
        for folder in (tmp_path, tmp_path / "model"):
            loaded = load_bundle(folder)
            assert not loaded.training
            torch.testing.assert_close(loaded(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet10t", {"act_layer": "gelu"}),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "depth": 2, "img_size": 64}),
    ],
)
@pytest.mark.parametrize("by", ["folder", "file"])
def test_what_timm_recorded_of_a_network_is_kept(tmp_path: Path, name: str, arguments: dict[str, Any], by: str) -> None:
    """Other activations have no tensors of their own: the weights would fit a network that computes something else."""
    torch.manual_seed(0)
    theirs: Any = timm.create_model(name, num_classes=5, **arguments)
    save_for_hf(theirs, str(tmp_path / "theirs"), model_args=arguments, safe_serialization=True)
    given = tmp_path / "theirs" if by == "folder" else tmp_path / "theirs" / "model.safetensors"
    model, x = build_model(str(given), classes=len(CLASSES), image_size=64).eval(), torch.rand(2, 3, 64, 64)
    save_bundle(model, tmp_path / "ours", CLASSES, {})
    with torch.no_grad():
        features = theirs.eval().forward_head(theirs.forward_features(model.prepared(x)), pre_logits=True)
        torch.testing.assert_close(model.backbone(model.prepared(x)), features)
        torch.testing.assert_close(load_bundle(tmp_path / "ours")(x), model(x), rtol=0, atol=0)
        torch.testing.assert_close(logits_by_timm(tmp_path / "ours", x), model(x))


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_what_timm_writes_beside_every_model_makes_no_other_one(tmp_path: Path, name: str) -> None:
    """``in_chans`` and ``global_pool``, as the plain model has them: an adapter of the one belongs to the other."""
    model = build_model(name, classes=3, weights="none", image_size=32)
    save_bundle(model, tmp_path, CLASSES, {})
    for given in (tmp_path, tmp_path / "model.safetensors"):
        again = build_model(str(given), classes=3, image_size=32)
        assert again.architecture.arguments == model.architecture.arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"wings": 2}, "wings"), ({"layers": {"a": 1}}, "model_args has layers")],
)
def test_recorded_arguments_that_build_nothing_end_in_a_line(
    tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    recorded(tmp_path, arguments)
    with pytest.raises(InputError, match=said):
        build_model(str(tmp_path / "model.safetensors"), classes=3)


@pytest.mark.parametrize(
    "arguments",
    [{"pretrained": True}, {"checkpoint_path": "/etc/hostname"}, {"pretrained_cfg": "a1"}, {"features_only": True}],
)
def test_a_file_of_weights_does_not_say_which_files_are_read(tmp_path: Path, arguments: dict[str, Any]) -> None:
    recorded(tmp_path, arguments)
    assert build_model(str(tmp_path / "model.safetensors"), classes=3).architecture.arguments == {}


def recorded(folder: Path, arguments: dict[str, Any]) -> None:
    """Write a ResNet-10 whose ``config.json`` asks for arguments of choice."""
    theirs = timm.create_model("resnet10t", num_classes=5)
    save_for_hf(theirs, str(folder), safe_serialization=True)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "model_args": arguments}))


@pytest.mark.parametrize(("name", "size"), MODELS[:3])
def test_a_loaded_model_ships_again(tmp_path: Path, name: str, size: int) -> None:
    """The input size of a ViT is part of its parameters, and must survive every round."""
    model, x = built(name, size), torch.rand(2, 3, size, size)
    save_bundle(model, tmp_path / "one", CLASSES, {})
    save_bundle(load_bundle(tmp_path / "one"), tmp_path / "two", CLASSES, {})
    with torch.no_grad():
        torch.testing.assert_close(logits_by_timm(tmp_path / "two", x), model(x))


@pytest.mark.parametrize(("name", "size"), MODELS[:3])
def test_a_shipped_model_is_a_backbone_to_start_from(tmp_path: Path, name: str, size: int) -> None:
    """``--model RUN`` takes the backbone with its weights and size, and gives it a new head; that ships too."""
    model, x = built(name, size), torch.rand(2, 3, size, size)
    save_bundle(model, tmp_path / "run" / "model", CLASSES, {})
    again = build_model(str(tmp_path / "run"), classes=2).eval()
    assert again.architecture.input_size == (3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(again.backbone(again.normalize(x)), model.backbone(model.normalize(x)))
    save_bundle(again, tmp_path / "next", ["a", "b"], {})
    assert logits_by_timm(tmp_path / "next", x).shape == (2, 2)


def test_config_records_the_circumstances(tmp_path: Path) -> None:
    model = built("resnet20_cifar", 40)
    model.normalize.mean.fill_(0.25)
    model.normalize.std.fill_(0.5)
    record: dict[str, Any] = {"threat_model": "Linf 8/255", "scores": {"natural": {"accuracy": 0.5}}}
    save_bundle(model, tmp_path, CLASSES, record)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "resnet20_cifar"
    assert config["num_classes"] == 3
    assert config["label_names"] == CLASSES == bundle_classes(tmp_path)
    assert config["autolora"] == record
    assert config["pretrained_cfg"]["input_size"] == [3, 40, 40]
    assert config["pretrained_cfg"]["mean"] == [0.25] * 3
    assert config["pretrained_cfg"]["std"] == [0.5] * 3


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_keys_are_timms(tmp_path: Path, name: str) -> None:
    save_bundle(built(name, 32), tmp_path, CLASSES, {})
    options: dict[str, Any] = {"img_size": 32} if name.startswith("vit") else {}
    theirs = timm.create_model(name, num_classes=3, **options).state_dict()
    ours = load_file(tmp_path / "model.safetensors")
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: tensor.shape for key, tensor in theirs.items()}


def test_a_model_with_branches_does_not_ship(tmp_path: Path) -> None:
    model = built("resnet20_cifar", 32)
    model.branches["natural"] = LowRankBranch(model.backbone, Pairs(rank=2))
    with pytest.raises(AssertionError, match="finalize"):
        save_bundle(model, tmp_path, CLASSES, {})
    assert not any(tmp_path.iterdir())


def test_shipping_leaves_the_model_alone(tmp_path: Path) -> None:
    model = built("resnet20_cifar", 32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_bundle(model, tmp_path, CLASSES, {})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert isinstance(model.head, nn.Linear)


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model in it; give a run folder that is finished"):
        load_bundle(tmp_path)
    with pytest.raises(InputError, match="no model in it"):
        load_bundle(tmp_path / "nowhere")
