"""``config.json`` of a stranger: refused in one line before timm builds what it says."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

from autolora.errors import InputError
from autolora.models import build_model, native_size
from autolora.models.bundle import bundle_classes, load_bundle
from autolora.models.bundle_config import read_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model as timm writes it."""
    model = timm.create_model("resnet20_cifar", num_classes=2)
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    about = {"input_size": [3, 12, 12], "mean": [0.5] * 3, "std": [0.5] * 3, "classifier": "fc"}
    content = {"architecture": "resnet20_cifar", "num_classes": 2, "label_names": ["a", "b"], "pretrained_cfg": about}
    (tmp_path / "config.json").write_text(json.dumps(content))
    return tmp_path


def changed(folder: Path, *names: str, value: Any) -> Path:
    content = json.loads((folder / "config.json").read_text())
    inner = content
    for name in names[:-1]:
        inner = inner.setdefault(name, {})
    inner[names[-1]] = value
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_one_that_is_sound_is_read(folder: Path) -> None:
    assert load_bundle(folder).architecture.input_size == (3, 12, 12)
    assert bundle_classes(folder) == ["a", "b"] and native_size(str(folder)) == 12


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (("num_classes",), 10**12),
        (("num_classes",), -1),
        (("num_classes",), "2"),
        (("num_classes",), True),
        (("architecture",), "nonsense"),
        (("architecture",), ["resnet18"]),
        (("architecture",), "vit_giant_patch14_clip_224"),  # of a billion numbers, in a file of a megabyte
        (("label_names",), [["a"], 3]),
        (("pretrained_cfg",), []),
        (("pretrained_cfg", "input_size"), [3, 10**9, 10**9]),
        (("pretrained_cfg", "mean"), ["x", 0, 0]),
        (("pretrained_cfg", "std"), [0, 0, 0]),
        (("pretrained_cfg", "std"), [float("nan")] * 3),
        (("model_args",), {"layers": [10**9] * 4}),
        (("model_args",), {"layers": [[[1]]]}),
        (("model_args",), {"nonsense": 1}),
        (("model_args",), [1]),
    ],
    ids=str,
)
def test_what_no_model_has_is_refused_at_once(folder: Path, names: tuple[str, ...], value: Any) -> None:
    changed(folder, *names, value=value)
    started = time.process_time()
    for read in (load_bundle, lambda path: build_model(str(path), classes=2)):
        with pytest.raises(InputError) as caught:
            read(folder)
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert time.process_time() - started < 20


@pytest.mark.parametrize("text", ["", "[]", "3", "[" * 100_000, '{"a":' * 100_000, "\x00", '{"architecture": null}'])
def test_what_is_no_settings_at_all(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    for read in (load_bundle, bundle_classes, lambda path: native_size(str(path))):
        with pytest.raises(InputError, match=r"config\.json is (damaged|not what was exported)"):
            read(folder)


def test_weights_that_are_not_there(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is not there"):
        load_bundle(folder)


def test_weights_of_another_shape_are_not_a_traceback(folder: Path) -> None:
    changed(folder, "num_classes", value=3)
    with pytest.raises(InputError, match="its files do not make a model"):
        load_bundle(folder)


def test_read_config_returns_what_it_holds(folder: Path) -> None:
    assert read_config(folder / "config.json")["num_classes"] == 2
