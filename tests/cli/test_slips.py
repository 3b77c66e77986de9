"""Slips of the hand on the command line: an option for what is none, a name that is a path, a file in the way."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from autolora.cli import run
from autolora.experiments.config import RunConfig


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
