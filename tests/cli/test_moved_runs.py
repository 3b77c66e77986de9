"""A run that stopped goes on where its folder is now, whatever its configuration says about where it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from autolora.cli import COMMANDS, _parse
from autolora.cli.options import to_config
from autolora.experiments.config import RunConfig, to_yaml
from autolora.experiments.run_folder import resume_command


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stopped run at ``moved/s4``, begun in ``runs/s4``, where a copy of it still is."""
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/s4", "moved/s4"):
        Path(folder, "checkpoints").mkdir(parents=True)
        Path(folder, "split.json").write_text("{}")
        Path(folder, "config.yaml").write_text(to_yaml(RunConfig("photos", lr=0.02, out="runs/s4")))
    return Path("moved/s4")


def configured(*words: str) -> RunConfig:
    options = _parse(["fit", *words])
    assert isinstance(options, Namespace)
    return to_config(options["fit"])


@pytest.mark.parametrize("lacking", [None, "split.json", "checkpoints"])
def test_a_moved_run_goes_on_where_it_lies(moved: Path, lacking: str | None) -> None:
    if lacking is not None:
        (moved / lacking).rename("away")
    config = configured("--config", "moved/s4/config.yaml", "--resume")
    assert config == replace(RunConfig("photos", lr=0.02), out="moved/s4")
    assert configured("--resume", "--config=moved/s4/config.yaml").folder == moved


def test_the_command_that_is_printed_goes_on_with_it(moved: Path) -> None:
    words = resume_command(moved).split()
    options: Any = _parse(words[1:])
    assert to_config(options["fit"]).folder == moved
    assert COMMANDS["fit"].resume_hint(options["fit"]).endswith(resume_command(moved))


def test_from_another_folder_too(moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    assert configured("--config", "../runs/s4/config.yaml", "--resume").folder == Path("../runs/s4")
    monkeypatch.chdir(tmp_path / moved)
    assert configured("--config", "config.yaml", "--resume").folder.resolve() == tmp_path / moved


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["--config", "moved/s4/config.yaml"], "runs/s4"),  # a new run, as the file says
        (["--config", "moved/s4/config.yaml", "--resume", "--out", "runs/s4"], "runs/s4"),
        (["--config", "moved/s4/config.yaml", "--resume", "--out=other"], "other"),
        (["--config", "mine.yaml", "--resume"], "runs/s4"),  # which is no run's own file
    ],
)
def test_an_out_that_is_said_is_taken(moved: Path, words: list[str], folder: str) -> None:
    Path("mine.yaml").write_text((moved / "config.yaml").read_text())
    assert configured(*words).folder == Path(folder)


def test_a_configuration_without_a_run_beside_it_is_no_run(moved: Path) -> None:
    (moved / "split.json").unlink()
    (moved / "checkpoints").rmdir()
    assert configured("--config", "moved/s4/config.yaml", "--resume").folder == Path("runs/s4")
