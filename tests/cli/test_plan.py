"""``autolora plan`` as it is typed: a forecast in words and as JSON, beside a finished run; mistakes in one line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from autolora import finetune
from autolora.cli import run
from autolora.cli.options import to_config
from autolora.experiments.planning import measuring

SMALL = [
    "--model",
    "resnet20_cifar",
    "--weights",
    "none",
    "--image-size",
    "12",
    "--batch-size",
    "8",
    "--attack",
    "pgd-2",
]
LIGHT = ["--device", "cpu", "--track", "none"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time everything but training steps once, after its warm-up."""
    monkeypatch.setattr(measuring, "ENOUGH", 0.0)


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned") / "run"
    small: dict[str, Any] = {"model": "resnet20_cifar", "weights": "none", "image_size": 12, "batch_size": 8}
    finetune(photos, method="at", epochs=2, attack="pgd-2", out=str(folder), track="none", progress=False, **small)
    return folder


def test_a_forecast_says_what_takes_how_long_and_what_to_type_next(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(photos), "--epochs", "2", "--method", "at", *SMALL, *LIGHT, "--schedule-options.rho", "0.5"]
    assert run(["plan", *given, "--budget", "10s"]) == 0
    text = capsys.readouterr().out
    for part in ("training", "validation, natural and PGD-10", "checkpoints", "apgd-ce", "fab-t", "square", "fast"):
        assert f"  {part}" in text
    assert "Forecast from three steps measured on this machine" in text and "in all, at most" in text
    assert "--fast" in text and "Largest batch" in text
    assert max(map(len, text.splitlines()[:-1])) <= 130
    assert not list(tmp_path.iterdir())
    words = shlex.split(text.splitlines()[-1].removeprefix("next"), comments=True)
    assert words[:3] == ["autolora", "fit", str(photos)]
    from autolora.cli import _parse

    def configured(argv: list[str]) -> Any:
        options: Any = _parse(argv)
        return to_config(options["fit"])

    assert configured(words[1:]) == configured(["fit", *given])


def test_a_finished_run_is_forecast_and_compared(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*"))
    assert run(["plan", str(finished), "--json", "--quiet"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*")) == before
    check, recorded = content["check"], json.loads((finished / "result.json").read_text())
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert content["method"] == "at" and content["fit"]["epochs"] == 2 == check["epochs_run"]
    assert check["seconds"]["recorded"] == recorded["seconds"]
    assert check["epoch_seconds"]["recorded"] == pytest.approx(sum(row["seconds"] for row in rows) / 2)
    assert check["seconds"]["forecast"] == pytest.approx(content["fit"]["seconds"])
    assert check["error"] == pytest.approx(content["fit"]["seconds"] / recorded["seconds"] - 1)
    assert check["epoch_error"] == pytest.approx(
        content["fit"]["epoch_seconds"] / check["epoch_seconds"]["recorded"] - 1
    )
    assert check["differences"] == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--budget", "soon"], "budget='soon' is no duration"),
        (["--method", "autolroa"], "method 'autolroa' is unknown; did you mean autolora?"),
        (["--resume"], "--resume"),
        (["--val-fraction", "2"], "val_fraction"),
    ],
)
def test_mistakes_are_one_line(
    photos: Path, options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", str(photos), *options]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert complaint.replace("_", "-") in error[-1].replace("_", "-")
    assert error[-1].startswith("autolora: ")


def test_options_beside_a_finished_run_are_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(finished), "--epochs", "9"]) == 2
    assert "option epochs is given beside the finished run" in capsys.readouterr().err


def test_a_run_that_is_not_finished_has_a_command_that_forecasts_it(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text((finished / "config.yaml").read_text())
    assert run(["plan", str(tmp_path)]) == 2
    assert f"autolora plan --config {tmp_path / 'config.yaml'}" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [None, "", "{}\n", '{"seconds": 0}\n', "no json\n"])
def test_a_run_without_its_times_is_refused_before_anything_is_measured(
    finished: Path, damage: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished / "metrics.jsonl"
    before = path.read_text()
    path.unlink() if damage is None else path.write_text(damage)
    try:
        assert run(["plan", str(finished)]) == 2
    finally:
        path.write_text(before)
    assert "damaged" in capsys.readouterr().err


def test_one_process_is_measured(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(["plan", str(photos)]) == 2
    assert "without torchrun" in capsys.readouterr().err
    monkeypatch.delenv("WORLD_SIZE")
    assert run(["plan", str(photos), "--shard"]) == 2
    assert capsys.readouterr().err.startswith("autolora: shard: plan measures one process")
