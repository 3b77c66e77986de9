"""``autolora export`` as it is typed: what it prints and writes, and one line for every mistake."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from autolora.cli import run
from autolora.experiments.export import exporting
from autolora.models import build_model
from autolora.models.bundle import save_bundle


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bundle() -> str:
    model = build_model("resnet20_cifar", classes=2, weights="none", image_size=8).eval()
    save_bundle(model, Path("bees"), ["ant", "bee"], {})
    return "bees"


def test_files_go_where_they_are_said_to_go(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", bundle, "--format", "timm"]) == 0
    out, err = capsys.readouterr()
    files = ["README.md", "architecture.py", "config.json", "model.safetensors", "robust_model.py"]
    assert out.splitlines() == [
        f"folder     exports/bees-timm: {', '.join(files)}",
        "use it     exports/bees-timm/README.md says how, with code to copy",
    ]
    assert err == ""
    assert sorted(path.name for path in Path("exports/bees-timm").iterdir()) == files
    assert [path.name for path in Path("exports").iterdir()] == ["bees-timm"]
    assert run(["export", bundle, "--format", "robustbench", "--out", "claim", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "") and Path("claim/model_info.json").is_file()


def test_what_is_missing_for_a_leaderboard_is_said(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", bundle, "--format", "robustbench"]) == 0
    err = capsys.readouterr().err
    assert "RobustBench has leaderboards for cifar10, cifar100, imagenet" in err
    assert "autoattack_acc is left empty: no robust accuracy was measured" in err


def test_options_reach_the_hub(
    bundle: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(exporting, "check_upload", calls.append)
    monkeypatch.setattr(exporting, "upload", lambda *given, **options: calls.append((*given, options)))
    assert run(["export", bundle, "--format", "timm", "--push-to-hub", "org/bees", "--private"]) == 0
    assert calls == ["org/bees", (Path("exports/bees-timm"), "org/bees", {"private": True})]
    assert "on the hub as org/bees" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bees"], "no --format given; use timm, onnx, peft or robustbench"),
        (["bees", "--format", "tim"], "format 'tim' is unknown; did you mean timm?"),
        (["bees", "--format", "timm", "--out", "bees"], "out=bees is not empty; name a folder that is new or empty"),
        (["bees", "--format", "peft"], "bees is no run, and holds no adapter; give the folder of a run of loft"),
        (["nowhere", "--format", "timm"], "nowhere: no run and no model in it; give the folder of a finished run"),
        (["begun", "--format", "timm"], "begun has no result.json: the run is not finished; continue it with --resume"),
        (["bees", "--format", "timm", "--push-to-hub", "bees"], "does not say whose it is; write ORG/NAME"),
        (["--format", "timm"], "no RUN given: run folder"),
        (["bees", "--formt", "timm"], "option --formt is unknown; did you mean --format?"),
    ],
)
def test_a_mistake_is_one_line(bundle: str, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("begun").mkdir()
    Path("begun/config.yaml").write_text("data: photos\n")
    assert run(["export", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err
    assert not Path("exports").exists()


def test_help_shows_worked_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "--help"]) == 0
    out = capsys.readouterr().out
    assert "autolora export runs/photos --format onnx" in out and "--push-to-hub ORG/NAME" in out


@pytest.mark.parametrize(("terminal", "quiet"), [(True, False), (True, True), (False, False)])
def test_an_export_shows_its_steps_to_people(
    bundle: str, terminal: bool, quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert run(["export", bundle, "--format", "timm", "--out", "shown", *["--quiet"] * quiet]) == 0
    err = capsys.readouterr().err
    names = ("reading the model", "writing timm, and comparing", "writing the card")
    places = [err.find(name) for name in names]
    assert places == sorted(places) and (min(places) >= 0) == (terminal and not quiet) == bool(err)
