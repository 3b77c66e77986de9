"""Files that a reader finds whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from autolora.experiments.result import RunResult, write_atomically, write_json, write_metrics


def test_a_kill_while_writing_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, "old")

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "result.json", {"a": 1})
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["result.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "result.json", {"accuracy": value})
    assert not (tmp_path / "result.json").exists()


def test_metrics_are_a_line_per_epoch(tmp_path: Path) -> None:
    rows = [{"epoch": 1.0, "lr": 0.01}, {"epoch": 2.0, "lr": 0.005}]
    write_metrics(tmp_path / "metrics.jsonl", rows)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == rows


def test_result_reads_back(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"scores": {"natural": {"accuracy": 0.5}, "pgd-10": {"accuracy": 0.25}}})
    result = RunResult.read(tmp_path)
    assert (result.accuracy(), result.accuracy("pgd-10")) == (0.5, 0.25)
    with pytest.raises(KeyError):
        result.accuracy("autoattack")
    with pytest.raises(FileNotFoundError):
        RunResult.read(tmp_path / "unfinished")
