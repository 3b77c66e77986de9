"""Slips of the hand on the command line: an option for what is none, a name that is a path, a file in the way."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import timm
import torch

import autolora
from autolora.cli import run
from autolora.cli.out_files import checked_out
from autolora.experiments.config import RunConfig
from autolora.models import build_model
from autolora.models.bundle import save_bundle
from autolora.paths import expanded


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], command: str) -> str:
    """Run a command that is a mistake, and return the line that it gets."""
    assert run(shlex.split(command)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("autolora: ")
    return err.removeprefix("autolora: ").rstrip()


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("fit --data photos/", "DATA is given without --data: autolora fit photos/ (see autolora fit --help)"),
        ("plan --data 'my photos'", "DATA is given without --data: autolora plan 'my photos' (see"),
        ("plan --data=photos", "DATA is given without --data: autolora plan photos (see"),
        ("evaluate --model runs/x --limit 3", "MODEL is given without --model: autolora evaluate runs/x (see"),
        ("doctor --model runs/x", "MODEL is given without --model: autolora doctor runs/x (see"),
        ("params --model x", "MODEL is given without --model: autolora params x (see"),
        ("export --run runs/x", "RUN is given without --run: autolora export runs/x (see"),
        ("report --run runs/x", "RUN is given without --run: autolora report runs/x (see"),
        ("fit --data", "DATA is given without --data: autolora fit DATA (see"),
        ("suite run --id autolora.T1", "ID is given without --id (see"),
        ("fit photos/ --modle x", "option --modle is unknown; did you mean --model? (see"),
    ],
)
def test_what_is_no_option_is_named_without_dashes(command: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, command).startswith(line)


# options of pre-training's own schedule


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"warmup": 2}),
        ("--schedule-options.minimum 0.01", {"warmup": 2, "minimum": 0.01}),
        ("--schedule-options.warmup 0", {"warmup": 0}),
        ("--schedule multistep", None),
        ("--schedule auto", None),
        ("--schedule constant", None),
        ("--schedule multistep --schedule-options.gamma 0.5", {"gamma": 0.5}),
    ],
)
def test_the_warm_up_belongs_to_the_schedule_that_has_one(
    options: str, expected: dict[str, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[RunConfig] = []
    monkeypatch.setattr("autolora.experiments.run.run", lambda config, **_: configs.append(config))
    monkeypatch.setattr("autolora.cli.summary.print_result", lambda *_: None)
    assert run(["pretrain", "digits", *options.split()]) == 0
    assert configs[0].schedule_options == expected


def test_a_warm_up_that_another_schedule_lacks_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(capsys, "pretrain digits --schedule multistep --schedule-options.warmup 2")
    assert "schedule multistep has no option 'warmup'; it has milestones, gamma" in line


# names of what is not there


@pytest.mark.parametrize("name", ["runs/phots", "./photos", "~/runs/photos", "best.pth", "last.ckpt", "a/b/c"])
@pytest.mark.parametrize("command", ["evaluate {} --data digits", "fit digits --model {}"])
def test_a_model_that_looks_like_a_path_is_a_run_or_file_that_is_not_there(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(capsys, command.format(name))
    assert f"model '{name}': no such run folder or file" in line and "prefix" not in line
    assert ("hf-hub:" in line) == (name == "runs/phots")  # the only one that can be ORG/NAME


def test_weights_that_are_a_folder_or_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    Path("notes.pth").write_text("learning rate 0.1\n")
    line = said(capsys, "fit digits --model resnet20_cifar --weights photos")
    assert line == ("weights photos: a folder without a finished run in it; give a run folder, or a file of weights")
    line = said(capsys, "fit digits --model resnet20_cifar --weights notes.pth")
    assert "it is a text, which holds no weights" in line and "pickle" not in line


def test_weights_that_are_no_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    state = timm.create_model("resnet20_cifar").state_dict()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, "spoilt.pth")
    line = said(capsys, "fit digits --model resnet20_cifar --weights spoilt.pth --quiet")
    assert "weights spoilt.pth hold values that are no numbers (NaN), in layer1.0.conv1.weight:" in line


# files of options


@pytest.mark.parametrize("command", ["report", "compare", "serve --port 0"])
def test_runs_in_a_file_of_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command.startswith("serve"):
        pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'autolora[serve]'")
    Path("mine.yaml").write_text("runs: [first, second]\n")
    line = said(capsys, f"{command} --config mine.yaml")
    assert "no run given" not in line and "first" in line
    assert "typed" in said(capsys, f"{command} typed other --config mine.yaml")
    Path("mine.yaml").write_text("runs: first\n")
    assert "mine.yaml gives one value to an option that takes a list" in said(capsys, f"{command} --config mine.yaml")


def test_a_run_folder_is_no_file_of_options(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    line = said(capsys, "fit digits --config run")
    assert line == "option --config: run is a folder; name a YAML file of options"
    Path("run/config.yaml").write_text("data: digits\n")
    line = said(capsys, "fit digits --config run")
    assert line == "option --config: run is a folder; did you mean run/config.yaml?"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("epochs: 3\nlr: 0.1\nepochs: 4\n", "epochs"),
        ("schedule_options:\n  rho: 0.5\n  rho: 0.7\n", "rho"),
        ("{lr: 1, 'lr': 2}", "lr"),
    ],
)
def test_an_option_that_a_file_gives_twice(text: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(text)
    line = said(capsys, "fit digits --config mine.yaml")
    assert line == f"option --config: mine.yaml gives '{key}' twice; keep the one that is meant"


# files in the way


@pytest.mark.parametrize(
    "name", ["result.json", "split.json", "model/config.json", "evaluation/pgd-20/evaluation.json"]
)
def test_a_comparison_is_not_written_over_what_a_run_found(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path("run", name)
    file.parent.mkdir(parents=True)
    Path("run/result.json").write_text("{}")
    file.write_text("{}")
    assert "is a file of the run in this folder; name another" in said(capsys, f"compare run other --out {file}")
    assert file.read_text() == "{}"
    assert "file of the run" not in said(capsys, "compare run other --out run/comparison.json")


def test_home_is_not_a_folder_called_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert checked_out("~/x.json", [".json"], "a comparison") == tmp_path / "home" / "x.json"
    assert expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    model = build_model("resnet20_cifar", classes=2, weights="none")
    save_bundle(model, tmp_path / "home" / "run" / "model", ["a", "b"], {})
    assert autolora.load("~/run").head.out_features == 2
