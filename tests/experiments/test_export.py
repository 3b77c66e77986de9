"""What is exported gives the run's logits in every tool that reads it, and says of itself what was measured."""

from __future__ import annotations

import ast
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autolora import finetune, load
from autolora.cli import run as command
from autolora.data.decoding import decode
from autolora.data.pixels import PHOTO_SIZE, Pixels, pixels_for
from autolora.errors import InputError
from autolora.experiments.export import export
from autolora.experiments.export.product import public_name
from autolora.experiments.export.robust_model import load_model
from autolora.experiments.export.timm_folder import crop_share, foreign_source
from autolora.experiments.image_sides import SHORTER_SIDE
from autolora.models import RobustModel, build_model
from autolora.models.bundle import save_bundle

BATCHES = (1, 3, 7)
MLPS = ["stages.0.blocks.0.mlp.fc1", "stages.0.blocks.0.mlp.fc2"]  # ConvNeXt's other layers are convolutions in groups
MODELS: dict[str, dict[str, Any]] = {
    "resnet18_cifar": {"image_size": 12},
    "vit_tiny_patch16_224": {"image_size": 32},
    "convnext_atto": {"image_size": 32, "method_options": {"targets": MLPS}},
}
HOSTILE = [
    '"; import os; os.system("touch canary") #',
    "<script>alert('x')</script>",
    "```\n# heading\n---\nlicense: mit\n---",
    "!!python/object/apply:os.system [touch canary]",
    "{{ 7 * 7 }} | `x` | ${HOME}",
    "\u202eevil\u2028naïve 蜂 \\n '''",
]


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of LoFT for each architecture; large steps, so that everything it trains has moved."""
    root = tmp_path_factory.mktemp("runs")
    common: dict[str, Any] = {"weights": "none", "method": "loft", "epochs": 1, "attack": "pgd-1", "lr": 0.5}
    common |= {"batch_size": 10, "rank": 2, "device": "cpu", "precision": "fp32", "progress": False}
    return {
        name: finetune(photos, model=name, out=str(root / name), **common, **options).folder
        for name, options in MODELS.items()
    }


@pytest.fixture(scope="module")
def exported(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Export a run once, for tests that only read."""
    root, done = tmp_path_factory.mktemp("exports"), set[Path]()

    def get(name: str, kind: str) -> Path:
        folder = root / f"{name}-{kind}"
        if folder not in done:
            export(runs[name], kind, folder)
            done.add(folder)
        return folder

    return get


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a small model in timm's format, with names and circumstances of choice."""

    def make(classes: list[str], record: dict[str, Any] | None = None, size: int = 8, name: str = "bundle") -> Path:
        save_bundle(small(len(classes), size), tmp_path / name, classes, record or {})
        return tmp_path / name

    return make


def small(classes: int, size: int) -> RobustModel:
    return build_model("resnet20_cifar", classes=classes, weights="none", image_size=size).eval()


@torch.no_grad()
def logits(model: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = model(x)
    return result


def images(model: RobustModel, count: int) -> Tensor:
    return torch.rand(count, *model.architecture.input_size)


def check_same(found: Callable[[Tensor], Tensor], run: Path) -> None:
    """Compare with the run's own model, at several sizes of the batch."""
    model = load(run)
    for count in BATCHES:
        x = images(model, count)
        torch.testing.assert_close(found(x), logits(model, x), rtol=1e-5, atol=1e-5)


def normalised(x: Tensor, config: dict[str, Any]) -> Tensor:
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (x - mean) / std


def by_timm(folder: Path) -> Any:
    """Load a folder as timm's documentation says; its models have attributes that it does not type."""
    return timm.create_model(f"local-dir:{folder}", pretrained=True)


def results(folder: Path) -> list[EvalResult]:
    """Read the scores of the card as the hub's own client does."""
    data: Any = ModelCard.load(folder / "README.md").data
    return data.eval_results or []


def text(folder: Path) -> str:
    return ModelCard.load(folder / "README.md").text


def header(folder: Path) -> dict[str, Any]:
    """Read the card's header with YAML's safe loader alone."""
    content: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("\n---\n")[0])
    return content


def blocks(folder: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)


# the same logits


@pytest.mark.parametrize("name", MODELS)
def test_timm(exported: Callable[[str, str], Path], runs: dict[str, Path], name: str) -> None:
    folder = exported(name, "timm")
    model = by_timm(folder).eval()
    check_same(lambda x: logits(model, normalised(x, model.pretrained_cfg)), runs[name])
    assert list(model.pretrained_cfg["label_names"]) == ["blue", "green", "red"]


@pytest.mark.parametrize("name", MODELS)
def test_peft(exported: Callable[[str, str], Path], runs: dict[str, Path], name: str) -> None:
    peft = pytest.importorskip("peft")
    folder = exported(name, "peft")
    plain = by_timm(folder / "backbone")
    before = normalised(images(load(runs[name]), 3), plain.pretrained_cfg)
    assert (logits(plain.eval(), before) - logits(load(runs[name]), before)).abs().max() > 1e-3  # PEFT has work to do
    model = peft.PeftModel.from_pretrained(plain, str(folder)).eval()
    check_same(lambda x: logits(model, normalised(x, plain.pretrained_cfg)), runs[name])
    check_same(lambda x: logits(load_model(folder), x), runs[name])


STRANGER = """
import json, os, re, sys
sys.modules["autolora"] = None  # an import of it would fail
import torch
from safetensors.torch import save_file

for folder in sys.argv[1:]:
    os.chdir(folder)
    sys.path[0] = folder
    sys.modules.pop("robust_model", None)
    found = {}
    for number, code in enumerate(json.load(open("blocks.json"))):
        names = {}
        exec(code, names)
        found[f"{number} logits"] = names["logits"].contiguous()
        if "images" in names:
            found[f"{number} images"] = names["images"]
        assert not names["model"].training
    save_file(found, "found.safetensors")
"""


def test_the_card_shows_code_that_needs_nothing_of_this_package(
    exported: Callable[[str, str], Path], runs: dict[str, Path], bundle: Callable[..., Path], tmp_path: Path
) -> None:
    """In a process of its own: the wrapper on images in [0, 1], and timm with its transform on a photo."""
    made = [(runs[name], exported(name, kind)) for name in MODELS for kind in ("timm", "robustbench")]
    other = bundle(["a", "b"], {"method": "at"})  # of an architecture whose code is another file of this package
    made += [(other, export(other, kind, tmp_path / kind)) for kind in ("timm", "robustbench")]
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    for _, folder in made:
        photo.save(folder / "photo.jpg")
        (folder / "blocks.json").write_text(json.dumps(blocks(folder)))
    argv = [sys.executable, "-c", STRANGER, *(str(folder) for _, folder in made)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for run, folder in made:
        model, found = load(run), load_file(folder / "found.safetensors")
        torch.testing.assert_close(found["0 logits"], logits(model, found["0 images"]), rtol=1e-5, atol=1e-5)
        if "1 logits" in found:
            x = cut((folder / "photo.jpg").read_bytes(), model.architecture.input_size[-1])
            torch.testing.assert_close(found["1 logits"], logits(model, x), rtol=1e-5, atol=1e-5)
    with_photo = ["1 logits" in load_file(folder / "found.safetensors") for _, folder in made]
    assert with_photo == [True, False] * (len(MODELS) + 1)


def test_the_code_of_the_adapters_card_runs(
    exported: Callable[[str, str], Path], runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    folder = exported("resnet18_cifar", "peft")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "robust_model", raising=False)
    found = []
    for code in blocks(folder):
        names: dict[str, Any] = {}
        exec(code, names)
        found.append(names["logits"])
        expected = logits(load(runs["resnet18_cifar"]), names["images"])
        torch.testing.assert_close(names["logits"], expected, rtol=1e-5, atol=1e-5)
    assert len(found) == 2
    monkeypatch.delitem(sys.modules, "robust_model")


def cut(photo: bytes, size: int, photo_size: int = PHOTO_SIZE) -> Tensor:
    """Bring a photo to size as training and evaluation do."""
    pixels: Pixels = pixels_for([], size, photo_size=photo_size)
    image = pixels.prepare(decode(photo))
    height, width = image.shape[:2]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return torch.from_numpy(image[top : top + size, left : left + size]).permute(2, 0, 1).unsqueeze(0).float() / 255


@pytest.mark.parametrize(
    ("size", "recorded", "photo_size"),
    [(32, {}, PHOTO_SIZE), (100, {}, PHOTO_SIZE), (224, {}, PHOTO_SIZE), (96, {SHORTER_SIDE: 96}, 97)],  # STL-10's
)
def test_timms_transform_cuts_images_as_they_were_cut_in_training(
    bundle: Callable[..., Path], tmp_path: Path, size: int, recorded: dict[str, int], photo_size: int
) -> None:
    folder = export(bundle(["a", "b"], {"method": "at", **recorded}, size), "timm", tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    timm_data: Any = timm.data  # of which timm types nothing
    transform = timm_data.create_transform(**timm_data.resolve_model_data_config(by_timm(folder)))
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (310, 401, 3), dtype=np.uint8))
    photo.save(tmp_path / "photo.png")
    x = cut((tmp_path / "photo.png").read_bytes(), size, photo_size)[0]
    torch.testing.assert_close(transform(photo), normalised(x, config), rtol=0, atol=1e-5)


def test_no_pixel_is_lost_at_any_size() -> None:
    """timm takes floor(size / crop_pct); at 443 pixels, say, the plain quotient would lose one to rounding."""
    sizes = [(size, round(size * 256 / 224)) for size in range(8, 1025)]
    assert all(math.floor(size / crop_share(size, shorter)) == shorter for size, shorter in sizes)
    assert {math.floor(size / crop_share(size, size)) - size for size in range(8, 1025)} == {0}


def test_a_shorter_side_that_cannot_be_is_refused(bundle: Callable[..., Path], tmp_path: Path) -> None:
    for said in (12, "wide", 10**9):
        with pytest.raises(InputError, match=r"shorter_side=.* is no shorter side of images of 32 pixels"):
            export(bundle(["a", "b"], {"method": "at", SHORTER_SIDE: said}, 32), "timm", tmp_path / "out")


def test_advice_of_timm_for_its_own_weights_is_gone(exported: Callable[[str, str], Path]) -> None:
    """timm tests its ConvNeXts at 288 pixels, with another crop."""
    model: Any = timm.create_model("convnext_atto")
    assert model.pretrained_cfg["test_input_size"] == (3, 288, 288)
    config = json.loads((exported("convnext_atto", "timm") / "config.json").read_text())["pretrained_cfg"]
    assert not {name for name in config if name.startswith("test_")}


def test_normalisation_of_any_kind_is_in_the_wrapper(tmp_path: Path) -> None:
    model = small(2, 8)
    model.normalize.mean.copy_(torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
    model.normalize.std.copy_(torch.tensor([0.9, 0.4, 0.05]).view(1, 3, 1, 1))
    save_bundle(model, tmp_path / "bundle", ["a", "b"], {})
    found = load_model(export(tmp_path / "bundle", "robustbench", tmp_path / "out"))
    x = images(model, 3)
    torch.testing.assert_close(logits(found, x), logits(model, x), rtol=1e-5, atol=1e-5)


def test_an_export_is_exported_again(exported: Callable[[str, str], Path], tmp_path: Path) -> None:
    first = exported("vit_tiny_patch16_224", "timm")
    again = export(first, "timm", tmp_path / "again")
    assert load_file(first / "model.safetensors").keys() == load_file(again / "model.safetensors").keys()
    check_same(lambda x: logits(load_model(again), x), first)
    assert header(again)["model-index"][0]["results"] == header(first)["model-index"][0]["results"]


# what RobustBench asks for


def test_the_wrapper_keeps_robustbenchs_contract(exported: Callable[[str, str], Path]) -> None:
    model = load_model(exported("resnet18_cifar", "robustbench"))
    x = torch.rand(4, 3, 12, 12, requires_grad=True)
    out = model(x)
    assert not any(module.training for module in model.modules())
    assert torch.equal(out, model(x)) and (out.sum(dim=1) - 1).abs().max() > 1e-3  # deterministic, no probabilities
    assert bool((torch.autograd.grad(out.max(dim=1).values.sum(), x)[0].flatten(1).abs().amax(dim=1) > 0).all())
    assert model.classes == ("blue", "green", "red")
    assert model.double()(x.double()).dtype == torch.float64  # mean and std follow the model


CLAIM: dict[str, Any] = {  # the fields of RobustBench's model_info, and their kinds
    **{name: str for name in ("link", "name", "authors", "dataset", "venue", "architecture", "eps", "clean_acc")},
    **{name: bool for name in ("additional_data", "unreliable")},
    "number_forward_passes": int,
    **{name: str | None for name in ("reported", "autoattack_acc")},
    "footnote": str,
}


def scored(accuracy: float, total: int, **more: Any) -> dict[str, Any]:
    return {"accuracy": accuracy, "correct": round(accuracy * total), "total": total, "ci95": [0.0, 1.0], **more}


def circumstances(**evaluations: dict[str, Any]) -> dict[str, Any]:
    """Circumstances of a model on CIFAR-10, with AutoAttack's scores."""
    return {
        "method": "at",
        "data": "cifar10",
        "threat_model": "Linf 8/255",
        "started_from": {"model": "resnet20_cifar", "weights": "none"},
        "scores": {"natural": scored(0.7216, 10_000), "pgd-10": scored(0.45, 10_000)},
        "evaluations": [{"threat_model": "Linf 8/255", "scores": evaluations}] if evaluations else [],
    }


STANDARD = {"label": "AA (standard)", "flags": []}
MASKED = [{"name": "black-box-stronger", "message": "gradients are masked", "count": 3, "total": 10_000}]


@pytest.mark.parametrize(
    ("evaluations", "claimed", "unreliable", "note"),
    [
        ({}, None, False, "under pgd-10 on 10000 images, an upper bound"),
        ({"autoattack": scored(0.4, 10_000, **STANDARD)}, "40.00", False, None),
        ({"autoattack": scored(0.40128, 10_000, label="AA (standard)", flags=MASKED)}, "40.13", True, None),
        ({"autoattack": scored(0.4, 500, **STANDARD)}, None, False, "under AA (standard) on 500 images"),
        ({"autoattack": scored(0.4, 10_000, label="AA-adapted (K=3)")}, None, False, "under AA-adapted (K=3)"),
        ({"autoattack-fast": scored(0.41, 500, label="AA-fast: x")}, None, False, "AA-fast: x on 500 images, an upper"),
    ],
)
def test_the_claim_has_no_accuracy_but_autoattacks_own(
    bundle: Callable[..., Path],
    tmp_path: Path,
    evaluations: dict[str, Any],
    claimed: str | None,
    unreliable: bool,
    note: str | None,
) -> None:
    folder = export(bundle(list("abc"), circumstances(**evaluations)), "robustbench", tmp_path / "out")
    claim = json.loads((folder / "model_info.json").read_text())
    assert claim.keys() == CLAIM.keys() - (set() if note else {"footnote"})
    assert all(isinstance(value, CLAIM[name]) for name, value in claim.items())
    assert (claim["dataset"], claim["eps"], claim["clean_acc"]) == ("cifar10", "8/255", "72.16")
    assert claim["additional_data"] is False and claim["unreliable"] is unreliable
    assert claim["autoattack_acc"] == claimed == claim["reported"]
    assert (note or "") in claim.get("footnote", "")
    issue = (folder / "new_model.md").read_text()
    assert f"- **Robust accuracy**:{f' {claimed}' if claimed else ''}\n" in issue


def test_pre_trained_weights_are_additional_data(bundle: Callable[..., Path], tmp_path: Path) -> None:
    record = {**circumstances(), "started_from": {"model": "resnet18", "weights": "pretrained"}}
    folder = export(bundle(list("abc"), record), "robustbench", tmp_path / "out")
    assert json.loads((folder / "model_info.json").read_text())["additional_data"] is True


# the card


@pytest.fixture(scope="module")
def judged(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with scores unlike those that chance gives, and what ``autolora evaluate`` found out about it since."""
    options: dict[str, Any] = {"model": "resnet20_cifar", "weights": "none", "image_size": 12, "batch_size": 10}
    out = tmp_path_factory.mktemp("judged") / "my run"
    finetune(photos, method="ft", epochs=1, eps="4/255", device="cpu", out=str(out), progress=False, **options)
    assert command(["evaluate", str(out), "--fast", "--limit", "6", "--quiet"]) == 0
    content = json.loads((out / "result.json").read_text())
    content["scores"] = {"natural": scored(17 / 18, 18), "pgd-10": scored(11 / 18, 18)}
    (out / "result.json").write_text(json.dumps(content))
    return out


@pytest.fixture
def evaluated(judged: Path, tmp_path: Path) -> Path:
    """A copy of that run, for a test to change."""
    return Path(shutil.copytree(judged, tmp_path / "my run"))


def test_the_card_holds_every_score_with_what_it_may_be_called(evaluated: Path, tmp_path: Path) -> None:
    folder = export(evaluated, "timm", tmp_path / "out")
    own = json.loads((evaluated / "result.json").read_text())["scores"]
    fast = json.loads((evaluated / "evaluation/autoattack-fast/evaluation.json").read_text())["scores"]
    found = results(folder)
    assert {result.dataset_split for result in found} == {"test"}
    assert [(result.metric_name, result.metric_value) for result in found] == [
        ("Natural accuracy", own["natural"]["accuracy"]),
        ("Robust accuracy, PGD-10, Linf 4/255, an upper bound", own["pgd-10"]["accuracy"]),
        (
            "Robust accuracy, AA-fast-adapted (K=3): apgd-ce and apgd-t, an upper bound, Linf 4/255",
            fast["autoattack-fast"]["accuracy"],
        ),
    ]
    facts = [result.metric_args or {} for result in found]
    assert [fact["images"] for fact in facts] == [18, 18, 6]
    assert facts[2]["ci95"] == fast["autoattack-fast"]["ci95"] and facts[2]["upper_bound"] is True
    shown = text(folder)
    low, high = fast["autoattack-fast"]["ci95"]
    assert f"[{100 * low:.1f}, {100 * high:.1f}] | {fast['autoattack-fast']['correct']} of 6" in shown
    assert "selected on validation images" in shown and "license" not in header(folder)
    assert "commonest class of the test images: 33.3%" in shown


def test_only_evaluations_of_this_model_on_its_test_images_count(
    evaluated: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = evaluated / "evaluation/autoattack-fast/evaluation.json"
    content = json.loads(path.read_text())
    about = content["circumstances"]
    strange: tuple[dict[str, Any], ...] = (
        {"model": "5" * 64},
        {"data": "5" * 64},
        {"split": "val"},
        {"image_size": 64},
    )
    for number, change in enumerate(strange):
        other = path.parent.parent / f"other{number}" / "evaluation.json"
        other.parent.mkdir()
        other.write_text(json.dumps({**content, "threat_model": "L2 0.5", "circumstances": {**about, **change}}))
    folder = export(evaluated, "timm", tmp_path / "out")
    assert "L2" not in (folder / "README.md").read_text()
    assert [record.getMessage().split(" is not")[0] for record in caplog.records] == [
        str(path.parent.parent / f"other{number}" / "evaluation.json") for number in range(4)
    ]


def test_a_curve_and_its_doubts_are_in_the_card(bundle: Callable[..., Path], tmp_path: Path) -> None:
    points = [("4/255", 0.5, []), ("8/255", 0.25, MASKED)]
    curve = [
        {
            "eps": eps,
            "scores": {"natural": scored(0.9, 40), "pgd-20": scored(accuracy, 40, label="pgd-20", flags=flags)},
        }
        for eps, accuracy, flags in points
    ]
    record = circumstances()
    record["evaluations"] = [{"threat_model": "Linf 4/255", "scores": curve[0]["scores"], "curve": curve}]
    folder = export(bundle(list("abc"), record), "timm", tmp_path / "out")
    found = results(folder)
    names = [result.metric_name for result in found]
    assert names[2:] == [f"Robust accuracy, PGD-20, Linf {eps}, an upper bound" for eps in ("4/255", "8/255")]
    assert (found[3].metric_args or {})["flags"] == ["black-box-stronger"]
    assert "- black-box-stronger: gradients are masked" in text(folder)


def test_autoattack_is_not_called_an_upper_bound(bundle: Callable[..., Path], tmp_path: Path) -> None:
    record = circumstances(autoattack=scored(0.4, 10_000, **STANDARD))
    folder = export(bundle(list("abc"), record), "timm", tmp_path / "out")
    (found,) = [item for item in results(folder) if "AA" in (item.metric_name or "")]
    assert found.metric_name == "Robust accuracy, AA (standard), Linf 8/255"
    assert (found.metric_args or {})["upper_bound"] is False


def test_a_model_without_scores_says_so(bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = export(bundle(["a", "b"]), "timm", tmp_path / "out")
    assert "None are recorded" in text(folder) and "model-index" not in header(folder)


@pytest.mark.parametrize("kind", ["timm", "robustbench"])
def test_hostile_names_stay_names(bundle: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    """In the card's header and body, in JSON, and in the Python wrapper, which is the same file for every model."""
    record = {**circumstances(), "data": HOSTILE[2], "method": HOSTILE[3]}
    source = bundle(HOSTILE, record, name="x\n---\nlicense: mit\n<b>")
    folder = export(source, kind, tmp_path / "out")
    found = header(folder)
    assert (
        "license" not in found
        and found.keys() == header(export(bundle(list("abc"), record), kind, tmp_path / "b")).keys()
    )
    assert HOSTILE[3] in found["tags"]
    whole = (folder / "README.md").read_text(encoding="utf-8")
    body = whole.split("\n---\n", 1)[1]
    prose, fenced = (
        re.sub(r"```.*?\n```\n", "", body, flags=re.DOTALL),
        re.findall(r"```text\n(.*?)\n```\n", body, re.DOTALL),
    )
    assert "<" not in prose and "# heading" not in body.splitlines() and "license: mit" not in body.splitlines()
    assert len(fenced) == 1 and len(fenced[0].splitlines()) == len(HOSTILE)
    assert "\u202e" not in whole and "\u2028" not in whole and "naïve 蜂" in whole
    assert json.loads((folder / "config.json").read_text())["label_names"] == HOSTILE
    assert load_model(folder).classes == tuple(HOSTILE)
    plain = export(bundle(["a", "b"], name="plain"), kind, tmp_path / "plain-out")
    assert (folder / "robust_model.py").read_bytes() == (plain / "robust_model.py").read_bytes()
    assert not list(Path.cwd().glob("canary")) and not list(tmp_path.rglob("canary"))


def test_no_path_of_this_machine_is_exported(
    exported: Callable[[str, str], Path], runs: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    folders = [exported("resnet18_cifar", kind) for kind in ("timm", "peft", "robustbench")]
    folders.append(export(runs["resnet18_cifar"] / "model", "timm", tmp_path / "of-model"))
    assert str(photos) in (runs["resnet18_cifar"] / "model/config.json").read_text()
    for folder in folders:
        for path in folder.rglob("*"):
            # tests that have loaded it leave what they found, and Python the bytecode
            if path.is_file() and path.suffix != ".pyc" and path.name not in ("blocks.json", "found.safetensors"):
                assert str(photos.parent).encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hf:uoft-cs/cifar100,label=fine_label", "hf:uoft-cs/cifar100,label=fine_label"),
        ("salman2020:resnet18_linf_eps4.0", "salman2020:resnet18_linf_eps4.0"),
        ("local-dir:/home/me/secret/model", "model"),
        ("photos:v2/secret/dir", "dir"),
        ("/home/me/photos.zip", "photos.zip"),
        ("packaged", "packaged"),
    ],
)
def test_a_name_is_public_and_a_path_is_not(text: str, shown: str) -> None:
    assert public_name(text) == shown


def test_data_of_the_hub_are_named_without_options(bundle: Callable[..., Path], tmp_path: Path) -> None:
    record: dict[str, Any] = {"method": "at", "data": "hf:uoft-cs/cifar100,label=fine_label"}
    record |= {"threat_model": "Linf 8/255", "scores": {"natural": scored(0.5, 40)}}
    card = header(export(bundle(["a", "b"], record), "timm", tmp_path / "out"))
    assert card["datasets"] == ["uoft-cs/cifar100"]
    assert card["model-index"][0]["results"][0]["dataset"]["type"] == "uoft-cs/cifar100"


def test_no_architecture_that_is_handed_on_needs_this_package() -> None:
    """Every one that this package has registered with timm, imported where the package is not there."""
    ours = [name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("autolora.")]
    sources = {source for name in ours if (source := foreign_source(name)) is not None}
    assert len(sources) == 3 and "wide_resnet50_4" in ours
    for source in sources:
        found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = {getattr(node, "module", None) or node.names[0].name for node in found}
        assert {module.split(".")[0] for module in modules} <= {"__future__", "typing", "collections", "timm", "torch"}


# refusals, and what is left behind


def test_a_failure_leaves_nothing_behind(
    bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bundle(["a", "b"])
    before = set(tmp_path.rglob("*"))

    def broken(*arguments: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("autolora.experiments.export.exporting.model_card", broken)
        with pytest.raises(KeyboardInterrupt):
            export(source, "timm", tmp_path / "out")
    assert set(tmp_path.rglob("*")) == before
    (tmp_path / "out").mkdir()
    assert (export(source, "timm", tmp_path / "out") / "README.md").is_file()  # an empty folder will do


def test_a_folder_in_use_is_left_alone(bundle: Callable[..., Path], tmp_path: Path) -> None:
    source = bundle(["a", "b"])
    with pytest.raises(InputError, match="is not empty; name a folder that is new or empty"):
        export(source, "timm", source)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        export(source, "timm", tmp_path / "file")


def test_an_adapter_of_other_weights_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    """Half of an adapter would load in PEFT as well, and be another model."""
    run = Path(shutil.copytree(runs["resnet18_cifar"], tmp_path / "run"))
    path = run / "adapter/adapter_model.safetensors"
    state = load_file(path)
    save_file({name: tensor * (0 if name.endswith("lora_B.weight") else 1) for name, tensor in state.items()}, path)
    with pytest.raises(InputError, match="adapter and backbone together give other logits"):
        export(run, "peft", tmp_path / "out")
    result = json.loads((run / "result.json").read_text())
    result["config"]["seed"] = 1  # the random weights of another seed
    (run / "result.json").write_text(json.dumps(result))
    with pytest.raises(InputError, match=r"cannot be built again: the adapter belongs to other weights"):
        export(run, "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_adapter_no_peft(evaluated: Path, bundle: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no adapter: ft trains no adapter that outlives training, and loft does"):
        export(evaluated, "peft", tmp_path / "out")
    with pytest.raises(InputError, match="is no run, and holds no adapter"):
        export(bundle(["a", "b"]), "peft", tmp_path / "out")


def test_damaged_scores_are_named(bundle: Callable[..., Path], tmp_path: Path) -> None:
    record = {**circumstances(), "scores": {"natural": {"accuracy": 0.5}}}
    with pytest.raises(InputError, match="its scores are not as they were written"):
        export(bundle(["a", "b"], record), "timm", tmp_path / "out")


def test_an_architecture_of_someone_else_has_no_code_to_export(
    bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bundle(["a", "b"])
    monkeypatch.setattr(timm.model_entrypoint("resnet20_cifar"), "__module__", "their_models")
    with pytest.raises(InputError, match="comes from their_models"):
        export(source, "timm", tmp_path / "out")


# the hub


class FakeApi:
    """What the hub's client was asked to do."""

    calls: list[tuple[str, dict[str, Any]]]

    def create_repo(self, repo_id: str, **options: Any) -> str:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        return f"https://example.org/{repo_id}"

    def upload_folder(self, **options: Any) -> None:
        files = sorted(path.name for path in Path(options["folder_path"]).iterdir())
        self.calls.append(("upload_folder", {**options, "files": files}))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    """Someone is logged in, and the hub answers."""
    FakeApi.calls = []
    where = "autolora.experiments.export.hub"
    monkeypatch.setattr(f"{where}.HfApi", FakeApi)
    monkeypatch.setattr(f"{where}.get_token", lambda: "hf_secret")
    monkeypatch.setattr(f"{where}.within_reach", lambda repository: True)
    return FakeApi


def test_push(hub: type[FakeApi], bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = export(bundle(["a", "b"]), "timm", tmp_path / "out", push_to_hub="org/bees", private=True)
    (created, made), (uploaded, sent) = hub.calls
    assert (created, uploaded) == ("create_repo", "upload_folder")
    assert made == {"repo_id": "org/bees", "repo_type": "model", "private": True, "exist_ok": True}
    assert (sent["repo_id"], sent["folder_path"], sent["repo_type"]) == ("org/bees", folder, "model")
    files = ["README.md", "architecture.py", "config.json", "model.safetensors", "robust_model.py"]
    assert sent["files"] == files == sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", [OSError, ValueError])
def test_a_refusal_of_the_hub_keeps_the_folder(
    hub: type[FakeApi],
    bundle: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
) -> None:
    def forbidden(self: FakeApi, **options: Any) -> None:
        raise kind("403 Forbidden: you may not write to org\nRequest ID: 1")

    monkeypatch.setattr(FakeApi, "upload_folder", forbidden)
    with pytest.raises(InputError, match=r"refused \(403 Forbidden: you may not write to org\); .* is complete"):
        export(bundle(["a", "b"]), "timm", tmp_path / "out", push_to_hub="org/bees")
    assert (tmp_path / "out" / "README.md").is_file()


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ({}, "bees", "does not say whose it is; write ORG/NAME"),
        ({}, "a/b/c", "does not say whose it is"),
        ({"get_token": lambda: None}, "org/bees", "nobody is logged in to the hub here; run `hf auth login`"),
        ({"within_reach": lambda repository: False}, "org/bees", "the hub cannot be reached; go online"),
    ],
)
def test_what_the_hub_needs_is_checked_first(
    hub: type[FakeApi],
    bundle: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    name: str,
    message: str,
) -> None:
    for what, instead in change.items():
        monkeypatch.setattr(f"autolora.experiments.export.hub.{what}", instead)
    with pytest.raises(InputError, match=message):
        export(bundle(["a", "b"]), "timm", tmp_path / "out", push_to_hub=name)
    assert not (tmp_path / "out").exists() and not hub.calls


def test_a_name_that_the_hub_cannot_have(
    bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autolora.experiments.export.hub.get_token", lambda: "hf_secret")
    with pytest.raises(InputError, match="'org/be es' is no name on the hub"):
        export(bundle(["a", "b"]), "timm", tmp_path / "out", push_to_hub="org/be es")
