"""The configuration: the same from Python, YAML and a run folder, and strict in all of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from autolora.errors import InputError
from autolora.experiments.config import RunConfig, config_from, read_yaml, to_yaml

CHANGED: dict[str, Any] = {
    "data": "photos/",
    "model": "resnet18",
    "weights": "none",
    "weights_format": "plain",
    "method": "at",
    "method_options": {"alpha": 2.0, "targets": ["layer1.0.conv1"]},
    "rank": 4,
    "adapter": "runs/y/adapter",
    "head": "zero",
    "eps": "0.5",
    "norm": "L2",
    "attack": "pgd-3",
    "step_size": "1/255",
    "epochs": 3,
    "batch_size": 32,
    "accumulate": 2,
    "image_size": 64,
    "upsample_to": 128,
    "upsampling": "bilinear",
    "data_root": "sets/",
    "track": "none",
    "schedule": "cosine",
    "schedule_options": {"warmup": 1},
    "lr": 0.1,
    "momentum": 0.5,
    "weight_decay": 0.0,
    "reset_momentum": True,
    "gradient_similarity": 2,
    "val_fraction": 0.1,
    "label_fraction": 0.5,
    "classes": "ants,bees",
    "augmentation": "none",
    "skip_bad_images": True,
    "seed": 7,
    "device": "cpu",
    "precision": "fp32",
    "workers": 1,
    "deterministic": True,
    "compile": "attack",
    "sync_batch_norm": "off",
    "shard": True,
    "checkpoint_minutes": 2.5,
    "plugin": "my_method.py",
    "out": "runs/x",
}


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "config.yaml").write_text(text)
    return tmp_path / "config.yaml"


@pytest.mark.parametrize("config", [RunConfig("digits"), RunConfig(**CHANGED)], ids=["defaults", "all changed"])
def test_yaml_round_trip(tmp_path: Path, config: RunConfig) -> None:
    assert read_yaml(written(tmp_path, to_yaml(config))) == config


def test_every_option_takes_part_in_the_round_trip() -> None:
    """So that a new field cannot be forgotten above."""
    fields = dataclasses.fields(RunConfig)
    assert CHANGED.keys() == {item.name for item in fields}
    assert all(CHANGED[item.name] != item.default for item in fields)
    assert yaml.safe_load(to_yaml(RunConfig(**CHANGED))) == CHANGED


@pytest.mark.parametrize(
    ("given", "meant"),
    [("epoch", "epochs"), ("batch-size", "batch_size"), ("modle", "model"), ("image-sise", "image_size")],
)
def test_unknown_option_with_a_suggestion(tmp_path: Path, given: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"option '{given}' is unknown; did you mean {meant}\?"):
        config_from({"data": "digits", given: 3})
    with pytest.raises(InputError, match=f"'{given}' is unknown"):
        read_yaml(written(tmp_path, f"data: digits\n{given}: 3\n"))


@pytest.mark.parametrize("options", [{}, {"data": ""}, {"data": None}])
def test_data_is_needed(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no data given; name a folder"):
        config_from(options)


def test_data_may_be_a_path() -> None:
    assert config_from({"data": Path("photos") / "mine"}).data == str(Path("photos/mine"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),  # batch norm has no variance of one image
        ("rank", 0),
        ("image_size", 4),
        ("workers", -1),
        ("seed", -1),
        ("lr", 0.0),
        ("lr", -0.1),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-4),
    ],
)
def test_values_out_of_range(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"^{name.replace('_', '-')}={value}"):
        RunConfig("digits", **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 1), ("batch_size", 2), ("rank", 1), ("image_size", 8), ("momentum", 0.0), ("weight_decay", 0.0)],
)
def test_values_at_the_edge(name: str, value: float) -> None:
    assert getattr(RunConfig("digits", **{name: value}), name) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "folder"),
    [
        ("digits", "runs/digits-autolora"),
        ("/data/photos/", "runs/photos-autolora"),
        ("a/b.tar.gz", "runs/b-autolora"),
        (".", "runs/data-autolora"),
    ],
)
def test_folder_is_named_after_data_and_method(data: str, folder: str) -> None:
    assert RunConfig(data).folder == Path(folder)
    assert RunConfig(data, out="elsewhere").folder == Path("elsewhere")


def test_defaults_are_the_papers() -> None:
    """Xu et al. (2024), section 5 and appendix: the values of methods.md 1.6."""
    config = RunConfig("digits")
    paper = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "eps": "8/255", "norm": "Linf", "attack": "pgd-10"}
    assert {name: getattr(config, name) for name in paper} == paper
    assert config.method == "autolora"
    assert config.schedule == "auto"
