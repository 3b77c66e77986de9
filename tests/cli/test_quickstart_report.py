"""What ``autolora quickstart`` ends with: a table, and a report of both runs in the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import autolora
from autolora.cli import run
from autolora.experiments import quickstart
from autolora.experiments.result import RunResult


@pytest.fixture
def short(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let its two runs be of tiny photos, an epoch each."""

    def runs(out: str, **_: Any) -> tuple[RunResult, RunResult]:
        options: dict[str, Any] = {"method": "ft", "epochs": 1, "progress": False}
        robust = autolora.finetune(photos, out=out, **options)
        return robust, autolora.finetune(photos, out=f"{out}/control", **options)

    monkeypatch.setattr(quickstart, "quickstart", runs)


@pytest.mark.usefixtures("short")
def test_it_ends_with_a_report_of_both_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "first"
    assert run(["quickstart", "--out", str(folder)]) == 0
    out, _ = capsys.readouterr()
    assert f"report     {folder}/report.html  (open it in a browser)" in out.splitlines()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "2 runs side by side" in page and 'id="gallery"' in page
    assert "data:image/png;base64," in page, "the gallery shows images"
    assert len(page) < 5e6


@pytest.mark.usefixtures("short")
def test_quiet_writes_the_report_and_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quickstart", "--out", str(tmp_path / "first"), "--quiet"]) == 0
    assert capsys.readouterr().out == "" and (tmp_path / "first/report.html").is_file()
