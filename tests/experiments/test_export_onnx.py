"""ONNX Runtime gives the run's logits for images in [0, 1], whatever their number; a file that does not is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor

from autolora.errors import InputError
from autolora.experiments.export import export, exporting, onnx_file
from autolora.models import RobustModel, build_model
from autolora.models.bundle import load_bundle, save_bundle

MODELS = [("resnet18_cifar", 8), ("vit_tiny_patch16_224", 32), ("convnext_atto", 32)]
BATCHES = (1, 3, 7)
HOSTILE = ['"; DROP', "<b>", "a\nb", "!!python/name:os.system", "naïve 蜂 \u202e"]
RECORD = {"method": "at", "data": "photos", "threat_model": "L2 0.5", "scores": {}}


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def runtime() -> Any:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    return pytest.importorskip("onnxruntime")


def written(folder: Path, name: str = "resnet20_cifar", size: int = 8) -> Path:
    """A model with statistics of its own, and a normalisation that nobody would guess."""
    model = build_model(name, classes=len(HOSTILE), weights="none", image_size=size)
    model.normalize.mean.copy_(torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
    model.normalize.std.copy_(torch.tensor([0.9, 0.4, 0.05]).view(1, 3, 1, 1))
    model.train()
    with torch.no_grad():
        model(torch.rand(8, 3, size, size))
    save_bundle(model.eval(), folder, HOSTILE, RECORD)
    return folder


def torch_logits(model: RobustModel, x: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(x)
    return result


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], tuple[Path, Path]]:
    """Give a bundle and its export, made once."""
    root, done = tmp_path_factory.mktemp("onnx"), dict[str, tuple[Path, Path]]()

    def get(name: str, size: int) -> tuple[Path, Path]:
        if name not in done:
            source = written(root / name, name, size)
            done[name] = source, export(source, "onnx", root / f"{name}-onnx")
        return done[name]

    return get


@pytest.mark.parametrize(("name", "size"), MODELS)
def test_the_same_logits_for_any_number_of_images(
    exported: Callable[[str, int], tuple[Path, Path]], runtime: Any, name: str, size: int
) -> None:
    source, folder = exported(name, size)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.onnx"]
    session = runtime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    model = load_bundle(source)
    for count in BATCHES:
        x = torch.rand(count, 3, size, size)
        expected = torch_logits(model, x)
        (found,) = session.run(None, {"images": x.numpy()})
        largest = float(expected.abs().max())
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-5 * largest)


def test_the_file_names_its_classes_and_what_it_was_trained_against(
    exported: Callable[[str, int], tuple[Path, Path]], runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = exported(*MODELS[0])
    session = runtime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["label_names"]) == HOSTILE
    assert facts["threat_model"] == "L2 0.5" and json.loads(facts["autolora"])["method"] == "at"
    assert "in [0, 1]; the graph normalises them" in facts["input"]
    assert [(item.name, item.type) for item in session.get_inputs()] == [("images", "tensor(float)")]
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec((folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0], names)
    assert names["logits"].shape == (4, len(HOSTILE)) and names["names"] == HOSTILE


def test_a_file_with_other_logits_is_refused(tmp_path: Path, runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source, exporter = written(tmp_path / "bundle"), torch.onnx.export

    def spoiling(model: RobustModel, *arguments: Any, **options: Any) -> Any:
        other = deepcopy(model)
        with torch.no_grad():
            other.head.bias[0] += 1e-3
        return exporter(other, *arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", spoiling)
    with pytest.raises(InputError, match=r"ONNX Runtime gives other logits for resnet20_cifar than torch"):
        export(source, "onnx", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("spoil", [lambda found: found * torch.nan, lambda found: found[:1], lambda found: -found])
def test_a_runtime_with_other_logits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensor], Tensor]
) -> None:
    model = load_bundle(written(tmp_path / "bundle"))

    class Runtime:
        def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
            return [spoil(torch_logits(model, torch.from_numpy(inputs["images"]))).numpy()]

    monkeypatch.setattr(exporting, "check_packages", lambda: None)
    monkeypatch.setattr(torch.onnx, "export", MagicMock())
    monkeypatch.setattr(onnx_file, "_session", lambda path: Runtime())
    with pytest.raises(InputError, match="ONNX Runtime gives other logits"):
        export(tmp_path / "bundle", "onnx", tmp_path / "out")


def test_what_torch_has_no_onnx_form_for_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any, **options: Any) -> None:
        cause = AttributeError("no form of aten::grid")
        raise torch.onnx.errors.OnnxExporterError("Failed\nand a long report") from cause

    monkeypatch.setattr(exporting, "check_packages", lambda: None)
    monkeypatch.setattr(torch.onnx, "export", failing)
    with pytest.raises(InputError, match=r"cannot write resnet20_cifar as ONNX \(no form of aten::grid\); try a newer"):
        export(written(tmp_path / "bundle"), "onnx", tmp_path / "out")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    find: Callable[[str], object] = lambda name: None if name == missing else object()  # noqa: E731
    monkeypatch.setattr(onnx_file, "find_spec", find)
    with pytest.raises(InputError, match=rf"needs {missing}; install the extra with: pip install '\.\[onnx\]'"):
        export(tmp_path / "nowhere", "onnx", tmp_path / "out")
