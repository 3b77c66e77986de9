"""Rows of a run in TensorBoard: what its own reader finds there, and what is said when a tracker is not there."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

import autolora
from autolora.errors import InputError, RunError
from autolora.experiments import tracking
from autolora.experiments.config import RunConfig
from autolora.experiments.tracking import tracked, tracker


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)


def test_every_row_of_the_log_can_be_read_back(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="no tensorboard: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tiny: dict[str, Any] = {
        "model": "resnet20_cifar",
        "weights": "none",
        "image_size": 12,
        "attack": "pgd-1",
        "batch_size": 12,
    }
    autolora.finetune(photos, out=tmp_path / "run", method="ft", epochs=2, track="tensorboard", progress=False, **tiny)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "autolora")).Reload()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for name in ("lr", "natural", "val_natural", "val_robust"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [row["epoch"] for row in rows]
        assert [value for _, value in found] == pytest.approx([row[name] for row in rows])


@pytest.mark.usefixtures("missing")
@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_named_before_anything_is_written(name: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"pip install {name}"):
        autolora.finetune("digits", out=tmp_path / "run", track=name, progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("missing")
def test_nobody_has_to_have_one() -> None:
    assert tracker(RunConfig(data="digits")) is None


def test_tensorboard_is_the_default_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: object() if name == "tensorboard" else None)
    assert tracker(RunConfig(data="digits")) == "tensorboard"
    assert tracker(RunConfig(data="digits", track="none")) is None


@pytest.mark.parametrize("name", sorted(tracking.PACKAGES))
def test_accelerate_knows_every_tracker(name: str) -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    assert name in LOGGER_TYPE_TO_CLASS


def in_the_way(folder: Path) -> Path:
    """Let a file lie where TensorBoard writes its folder."""
    folder.mkdir()
    (folder / "tensorboard").write_text("")
    return folder


def test_a_tracker_that_cannot_start_is_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="no tensorboard: pip install tensorboard")
    config = RunConfig(data="digits", out=str(in_the_way(tmp_path / "run")), track="tensorboard")
    message = r"^--track tensorboard: tensorboard cannot start \(\w+: .*run/tensorboard.*--track none$"
    with pytest.raises(RunError, match=message), tracked(Accelerator(cpu=True), config) as track:
        track({"epoch": 1, "lr": 0.1})


def test_a_run_goes_on_without_a_tracker_that_nobody_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard", reason="no tensorboard: pip install tensorboard")
    config = RunConfig(data="digits", out=str(in_the_way(tmp_path / "run")))
    with caplog.at_level(logging.WARNING, "autolora"), tracked(Accelerator(cpu=True), config) as track:
        for epoch in (1, 2):
            track({"epoch": epoch, "lr": 0.1})
    assert caplog.text.count("tensorboard cannot start (") == 1 and "goes on without it" in caplog.text


def test_a_run_that_is_refused_leaves_no_log_behind(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="no tensorboard: pip install tensorboard")
    config = RunConfig(data="digits", out=str(tmp_path / "run"))
    with pytest.raises(InputError, match="cannot be trained"), tracked(Accelerator(cpu=True), config):
        raise InputError("this model cannot be trained so")
    assert not (tmp_path / "run").exists()
