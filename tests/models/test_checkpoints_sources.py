"""What MODEL and --weights stand for: files that tell their architecture, a collection on the hub, and ten families."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor, nn

from autolora.cli import run
from autolora.errors import InputError
from autolora.experiments.config import RunConfig
from autolora.experiments.ingredients import prepare
from autolora.experiments.subject import find_subject
from autolora.models import build_model, native_size
from autolora.models import hub as hub_module
from autolora.models.backbones import check_weights
from autolora.models.bundle import build_classifier, load_bundle, save_bundle
from autolora.models.checkpoints import FORMATS
from autolora.models.checkpoints.architectures import RESNETS, architecture_by_shapes, fits_architecture
from autolora.models.checkpoints.salman import COLLECTION, REPOSITORY

RESNET20 = "weights/resnet20-12fca82f.th"


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def on_meta(build: Callable[[], Any]) -> dict[str, Tensor]:
    with torch.device("meta"):
        state: dict[str, Tensor] = build().state_dict()
    return state


# architectures by their shapes


@pytest.mark.parametrize("name", RESNETS)
def test_resnets_are_told_by_their_shapes(name: str) -> None:
    """torchvision's networks where it has them, which we did not write; else timm's with these names."""
    original = getattr(torchvision.models, name, None)
    state = on_meta(lambda: original(num_classes=7) if original else timm.create_model(name, num_classes=7))
    assert architecture_by_shapes(state) == name
    without_head = {key: value for key, value in state.items() if not key.startswith(("fc.", "linear."))}
    assert architecture_by_shapes(without_head) == name


@pytest.mark.parametrize("name", ["resnet18d", "seresnet18", "resnet26", "resnet50_gn", "deit_tiny_patch16_224"])
def test_what_only_looks_like_one_of_them_is_none(name: str) -> None:
    assert architecture_by_shapes(on_meta(lambda: timm.create_model(name))) is None


def test_one_tensor_more_or_less_is_another_architecture() -> None:
    state = on_meta(lambda: timm.create_model("resnet20_cifar"))
    assert not fits_architecture("resnet20_cifar", state | {"extra": state["bn1.weight"]})
    del state["layer3.2.bn2.weight"]
    assert architecture_by_shapes(state) is None
    assert architecture_by_shapes({}) is None


# a file as MODEL


def saved(folder: Path, name: str, **more: Any) -> Path:
    model = timm.create_model(name, num_classes=3)
    torch.save({"state_dict": model.state_dict(), **more}, folder / "weights.pth")
    return folder / "weights.pth"


def test_a_file_is_a_model_where_it_tells_its_architecture(tmp_path: Path) -> None:
    path = str(saved(tmp_path, "resnet20_cifar"))
    assert native_size(path) == 32
    assert build_classifier(path).architecture.name == "resnet20_cifar"
    assert build_model(path, classes=7).head.out_features == 7
    random = build_model(path, classes=7, weights="none")
    assert not torch.equal(random.backbone.state_dict()["conv1.weight"], torch.load(path)["state_dict"]["conv1.weight"])


def test_a_file_that_records_its_architecture(tmp_path: Path) -> None:
    """What is recorded counts where it fits: the shapes alone do not tell a network with other poolings."""
    path = saved(tmp_path, "resnetblur18", arch="resnetblur18")
    assert build_classifier(str(path)).architecture.name == "resnetblur18"
    path = saved(tmp_path, "resnet20_cifar", arch="resnet20")  # its writer's name for it, which timm has not
    assert build_classifier(str(path)).architecture.name == "resnet20_cifar"


def test_a_file_that_does_not_tell_its_architecture(tmp_path: Path) -> None:
    path = saved(tmp_path, "mobilenetv3_small_050")
    for ask in (lambda: build_classifier(str(path)), lambda: native_size(str(path))):
        with pytest.raises(InputError, match=r"a file of weights, which does not say what.*--weights .*weights\.pth"):
            ask()
    assert build_classifier("mobilenetv3_small_050", weights=str(path)).head.out_features == 3


def test_a_file_that_a_training_script_saved_whole(tmp_path: Path) -> None:
    """A LightningModule's names begin with the attribute that holds the network."""
    net = timm.create_model("resnet20_cifar", num_classes=3)
    state = {f"model.{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state | {"loss.weight": torch.ones(3)}}, tmp_path / "last.ckpt")
    classifier = build_classifier(str(tmp_path / "last.ckpt"))
    assert classifier.architecture.name == "resnet20_cifar"
    assert torch.equal(classifier.backbone.state_dict()["conv1.weight"], net.state_dict()["conv1.weight"])


def test_two_stems_of_one_shape_are_not_told_apart(tmp_path: Path) -> None:
    """A CIFAR ResNet by torchvision's names can have solo-learn's stem or the usual one; naming one decides."""
    path = str(saved(tmp_path, "resnet18_cifar"))
    with pytest.raises(InputError, match=r"two architectures fit .*resnet18_cifar, whose stem pads by 1.*solo-learn"):
        build_classifier(path)

    def side(model: Any) -> int:
        return int(model.backbone.conv1(torch.zeros(1, 3, 32, 32)).shape[-1])

    assert side(build_classifier("resnet18_cifar", weights=path)) == 32
    assert side(build_classifier(path, weights_format="solo-learn")) == 34


def test_somebody_elses_file_is_evaluated_by_itself(shared: Callable[[str], Path], tmp_path: Path) -> None:
    """``autolora evaluate FILE``: format and architecture recognised, its own normalisation, its own head."""
    with zipfile.ZipFile(shared("data/cifar10.zip")) as archive:
        names = [name for name in archive.namelist() if "/test/" in name and name.endswith(".jpg")]
        for split in ("train", "test"):  # train is asked for, and not looked at
            for name in names:
                if int(Path(name).stem) < 8:
                    target = tmp_path / "cifar" / split / Path(name).parts[-2] / Path(name).name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(name))
    out = tmp_path / "out"
    options = ["--data", str(tmp_path / "cifar"), "--attack", "pgd-1", "--eps", "1/255", "--out", str(out), "--quiet"]
    assert run(["evaluate", str(shared(RESNET20)), *options]) == 0
    scores = json.loads((out / "evaluation.json").read_text())["scores"]
    assert scores["natural"]["total"] >= 50
    assert scores["natural"]["accuracy"] > 0.65  # 81.0 % on all 5,000 test JPEGs, see test_resnet_cifar


def test_a_run_from_a_file_normalises_as_the_file_says(photos: Path, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Module(), timm.create_model("resnet20_cifar"))
    net[0].register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]))
    net[0].register_buffer("std", torch.tensor([0.4, 0.5, 0.6]))
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    options: dict[str, Any] = {"data": str(photos), "model": str(tmp_path / "weights.pth"), "weights_format": "plain"}
    normalize = prepare(RunConfig(**options), progress=False).model.normalize
    assert normalize.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert normalize.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    with pytest.raises(InputError, match="weights-format='plane' is unknown"):
        prepare(RunConfig(**{**options, "weights_format": "plane"}), progress=False)
    with pytest.raises(InputError, match="weights-format='plane' is unknown"):
        find_subject("resnet20_cifar", data=str(photos), weights="none", weights_format="plane")


# the collection of Salman et al.


def test_the_collection(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten L2 radii and five Linf radii of three ResNets, ten of a fourth, and two each of five more networks."""
    assert len(COLLECTION) == 3 * 15 + 10 + 5 * 2
    assert COLLECTION["salman2020:resnet18_linf_eps4.0"] == "resnet18"
    for architecture in set(COLLECTION.values()):
        assert on_meta(lambda name=architecture: timm.create_model(name, num_classes=1000))  # type: ignore[misc]
    assert run(["models", "--filter", "salman2020:resnet18_l*_eps[48]*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["weights"], row["summary"]) for row in rows] == [
        (f"hub: {REPOSITORY}", f"resnet18, adversarially trained on ImageNet, Linf {eps}/255") for eps in (4, 8)
    ]


def test_formats_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "--filter", "FILE*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [f"FILE ({name})" for name in FORMATS]
    assert all(row["weights"] for row in rows)


def salmans(path: Path) -> dict[str, Tensor]:
    """A file of the collection, by its own layout."""
    torch.manual_seed(1)
    state = torchvision.models.resnet18(num_classes=1000).state_dict()
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    twice = {f"module.{place}model.{name}": value for place in ("", "attacker.") for name, value in state.items()}
    for place in ("normalizer", "attacker.normalize"):
        twice |= {f"module.{place}.new_mean": mean, f"module.{place}.new_std": std}
    torch.save({"model": twice, "epoch": 90}, path)
    return dict(state)


def test_a_name_of_the_collection_is_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []
    cached = tmp_path / "cache.ckpt"

    def download(repository: str, name: str, local_files_only: bool = False) -> str:
        if not cached.exists():
            if local_files_only:
                raise LocalEntryNotFoundError("not in the cache")
            asked.append((repository, name))
            shutil.move(tmp_path / "remote.ckpt", cached)
        return str(cached)

    state = salmans(tmp_path / "remote.ckpt")
    monkeypatch.setattr(hub_module, "hf_hub_download", download)
    monkeypatch.setattr(hub_module, "_answers", lambda address: True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    name = "salman2020:resnet18_linf_eps4.0"
    check_weights(name)
    assert not asked, "a check fetches nothing"
    model = build_classifier(name)
    assert (model.architecture.name, native_size(name)) == ("resnet18", 224)
    assert torch.equal(model.head.weight, state["fc.weight"])
    other = build_model("resnet18", classes=2, weights=name, image_size=32)
    assert torch.equal(other.backbone.state_dict()["conv1.weight"], state["conv1.weight"])
    assert asked == [("madrylab/robust-imagenet-models", "resnet18_linf_eps4.0.ckpt")]


@pytest.mark.parametrize("ask", [build_classifier, check_weights])
def test_offline_says_where_the_file_is(monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], Any]) -> None:
    def uncached(*_: Any, **__: Any) -> Any:
        raise LocalEntryNotFoundError("not in the cache")

    def unreachable(*_: Any, **__: Any) -> Any:
        raise URLError(OSError(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(hub_module, "hf_hub_download", uncached)
    monkeypatch.setattr(hub_module, "urlopen", unreachable)
    with pytest.raises(InputError) as caught:
        ask("salman2020:resnet50_l2_eps3")
    message = str(caught.value)
    for part in ("resnet50_l2_eps3.ckpt", "madrylab/robust-imagenet-models", "cannot be reached", "--weights FILE"):
        assert part in message
    assert "\n" not in message


def test_a_download_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(repository: str, name: str, local_files_only: bool = False) -> str:
        raise LocalEntryNotFoundError("no") if local_files_only else ConnectionError("reset")

    monkeypatch.setattr(hub_module, "hf_hub_download", broken)
    monkeypatch.setattr(hub_module, "_answers", lambda address: True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match=r"could not be fetched \(ConnectionError\); try again"):
        build_classifier("salman2020:resnet18_linf_eps1.0")


@pytest.mark.parametrize("name", ["salman2020:resnet18_linf_eps3.0", "salman2020:shufflenet_l2_eps3", "salman2020:"])
def test_a_name_that_the_collection_has_not(name: str) -> None:
    with pytest.raises(InputError, match=r"not in the collection.*such as salman2020:resnet18_linf_eps4\.0"):
        check_weights(name)
    with pytest.raises(InputError, match="not in the collection"):
        build_model(name, classes=2)


# loading and writing change no prediction

FAMILIES = [  # small ones of ten families: plain, patches, depthwise, inverted, dense, grouped, ghosts, hybrids
    ("resnet10t", 64),
    ("resnet18_cifar", 32),
    ("vit_tiny_patch16_224", 32),
    ("convnext_atto", 32),
    ("mobilenetv3_small_050", 32),
    ("efficientnet_b0", 32),
    ("densenet121", 32),
    ("regnetx_002", 32),
    ("ghostnet_050", 32),
    ("mobilevit_xxs", 64),
]
FORMS = ("zip", "legacy", "safetensors", "wrapped")


def write(model: Any, path: Path, form: str) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if form == "safetensors":
        save_file(state, path)
    elif form == "wrapped":
        torch.save({"model": {f"module._orig_mod.{name}": value for name, value in state.items()}}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")


@pytest.mark.parametrize(("place", "family"), list(enumerate(FAMILIES)))
def test_loading_and_writing_change_no_prediction(place: int, family: tuple[str, int], tmp_path: Path) -> None:
    """timm's own model on normalised images, its file read by us, and what we ship of it, whole and as a file."""
    name, size = family
    fixed: dict[str, Any] = {"img_size": size} if name.startswith("vit") else {}
    theirs: Any = timm.create_model(name, num_classes=6, **fixed)
    nn.init.normal_(theirs.get_classifier().weight)  # some families start with a head of zeros
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    write(theirs.eval(), tmp_path / "weights", FORMS[place % len(FORMS)])
    x = torch.rand(2, 3, size, size)
    mean, std = (torch.tensor(theirs.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = theirs((x - mean) / std)
        assert expected.std(0).max() > 1e-4
        ours = build_classifier(name, weights=str(tmp_path / "weights"), image_size=size)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
        save_bundle(ours, tmp_path / "model", list("abcdef"), {})
        torch.testing.assert_close(load_bundle(tmp_path)(x), expected, rtol=1e-5, atol=1e-5)
        file = tmp_path / "model" / "model.safetensors"  # with timm's config.json beside it
        torch.testing.assert_close(build_classifier(name, weights=str(file), image_size=size)(x), expected)
