"""Any timm model behind one interface, and what is said when one cannot be built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import nn

from autolora.errors import InputError
from autolora.models import build_model, native_size
from autolora.models import hub as hub_module
from autolora.models.backbones import packaged_weights

SMALL = [  # one of each family: convolutions, patches, windows, a head behind a pooling, a head behind a convolution
    ("resnet18", 32),
    ("vit_tiny_patch16_224", 64),
    ("deit_tiny_patch16_224", 32),
    ("convnext_atto", 32),
    ("mobilenetv3_small_050", 32),
    ("swin_tiny_patch4_window7_224", 56),
    ("resnet20_cifar", 32),
]


@pytest.mark.parametrize(("name", "size"), SMALL)
def test_timm_models_give_logits(name: str, size: int) -> None:
    model = build_model(name, classes=3, weights="none", image_size=size).eval()
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        logits = model(x)
        features = model.backbone(model.normalize(x))
    assert logits.shape == (2, 3)
    assert features.shape == (2, model.head.in_features)
    assert model.architecture.name == name
    assert model.architecture.input_size == (3, size, size)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_backbone_and_head_are_the_whole_of_timms_model(name: str) -> None:
    """With the weights of timm's model and its own normalisation, the logits are timm's."""
    torch.manual_seed(0)
    theirs: Any = timm.create_model(name, num_classes=5).eval()
    nn.init.normal_(theirs.get_classifier().weight)  # some families start with a head of zeros
    ours = build_model(name, classes=5, weights="none").eval()
    backbone = {key: value for key, value in theirs.state_dict().items() if key in ours.backbone.state_dict()}
    ours.backbone.load_state_dict(backbone)
    ours.head.load_state_dict(theirs.get_classifier().state_dict())
    assert len(backbone) + 2 == len(theirs.state_dict())
    x = torch.rand(1, 3, 224, 224)
    mean, std = (torch.tensor(theirs.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs((x - mean) / std))


@pytest.mark.parametrize(("name", "size"), [("resnet18", 224), ("resnet20_cifar", 32), ("packaged", 32)])
def test_native_size(name: str, size: int) -> None:
    assert native_size(name) == size


def test_new_head_is_torchs_default() -> None:
    torch.manual_seed(3)
    model = build_model("resnet20_cifar", classes=4, weights="none")
    bound = 1 / model.head.in_features**0.5
    assert model.head.weight.abs().max() <= bound
    assert model.head.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)


@pytest.mark.parametrize(("given", "meant"), [("resnet20_cifr", "resnet20_cifar"), ("resnt18", "resnet18")])
def test_unknown_name_with_a_suggestion(given: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"model '{given}' is unknown to timm; did you mean .*\b{meant}\b"):
        build_model(given, classes=2, weights="none")
    with pytest.raises(InputError, match="unknown"):
        native_size(given)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model in this folder; give a run folder that is finished"):
        build_model(str(tmp_path), classes=2)


def test_size_that_a_model_cannot_take() -> None:
    with pytest.raises(InputError, match=r"'vit_tiny_patch16_224' cannot take images of 8x8 .*--image-size"):
        build_model("vit_tiny_patch16_224", classes=2, weights="none", image_size=8)


def test_two_classifiers_are_refused() -> None:
    with pytest.raises(InputError, match="not one layer"):
        build_model("deit_tiny_distilled_patch16_224", classes=2, weights="none", image_size=32)


def test_architecture_without_weights() -> None:
    with pytest.raises(InputError, match=r"'resnet20_cifar': no pre-trained weights \(timm has none for it\)"):
        build_model("resnet20_cifar", classes=2)


# weights from files


def test_checkpoint_with_its_own_head_fits(tmp_path: Path) -> None:
    """A checkpoint of ten classes initialises a model of three; its head is left out."""
    torch.manual_seed(0)
    source = timm.create_model("resnet20_cifar", num_classes=10)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "ten.pth")
    model = build_model("resnet20_cifar", classes=3, weights=str(tmp_path / "ten.pth"))
    assert model.head.out_features == 3
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name])


def test_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet20w24_cifar").state_dict(), tmp_path / "wide.pth")
    with pytest.raises(InputError, match=r"do not fit the model CifarResNet: of another shape: conv1\.weight \(24, 3"):
        build_model("resnet20_cifar", classes=3, weights=str(tmp_path / "wide.pth"))


def test_packaged_weights() -> None:
    try:
        path = packaged_weights()
    except InputError as error:
        pytest.skip(str(error))
    assert path.stat().st_size <= 6e6
    first, second = (build_model(classes=4).backbone.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    random = build_model(classes=4, weights="none").backbone.state_dict()
    assert not torch.equal(first["conv1.weight"], random["conv1.weight"])


# without a network


def no_network(*_: Any, **__: Any) -> Any:
    raise URLError(OSError(-3, "Temporary failure in name resolution"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing cached, and no address answers."""

    def uncached(*_: Any, **__: Any) -> Any:
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(hub_module, "snapshot_download", uncached)
    monkeypatch.setattr(hub_module, "urlopen", no_network)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["resnet18", "hf-hub:timm/resnet18.a1_in1k"])
def test_offline_says_what_else_there_is(name: str) -> None:
    with pytest.raises(InputError, match=r"resnet18\.a1_in1k is not in this machine's cache") as caught:
        build_model(name, classes=2)
    for way_on in ("--weights FILE", "--weights none", "packaged robust backbone"):
        assert way_on in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_offline_without_weights_needs_no_network() -> None:
    assert build_model("resnet18", classes=2, weights="none", image_size=32).head.out_features == 2


def test_network_that_breaks_while_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise LocalEntryNotFoundError("cannot find the requested files in the local cache")
        return create(name, **options)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", broken)
    monkeypatch.setattr("autolora.models.creation.within_reach", lambda repository: True)
    with pytest.raises(InputError, match=r"no pre-trained weights \(LocalEntryNotFoundError: could not be fetched\)"):
        build_model("resnet18", classes=2)


@pytest.mark.parametrize(
    ("raised", "answers"),
    [
        (None, True),
        (HTTPError("https://hub", 403, "forbidden", {}, None), True),  # type: ignore[arg-type]
        (URLError(ConnectionRefusedError()), False),
        (TimeoutError(), False),
    ],
)
def test_any_answer_is_an_answer(monkeypatch: pytest.MonkeyPatch, raised: Exception | None, answers: bool) -> None:
    class Response:
        def close(self) -> None: ...

    def ask(*_: Any, **__: Any) -> Response:
        if raised is not None:
            raise raised
        return Response()

    monkeypatch.setattr(hub_module, "urlopen", ask)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert hub_module.within_reach("nobody/nothing-of-this-name") is answers


def test_offline_by_the_users_wish_is_quick_and_quiet(tmp_path: Path) -> None:
    """HF_HUB_OFFLINE=1 with an empty cache: no question to the network, nothing on stderr but our line."""
    code = (
        "import socket\n"
        "from autolora.errors import InputError; from autolora.models import build_model\n"
        "asked = []\n"
        "socket.socket.connect = lambda *where: asked.append(where) or 1 / 0\n"
        "try: build_model('resnet18', classes=2)\n"
        "except InputError as error: print(error)\n"
        "assert not asked, asked"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "no pre-trained weights (timm/resnet18.a1_in1k is not in this machine's cache" in done.stdout
    assert done.stderr == ""
