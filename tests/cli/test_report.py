"""``autolora report`` as it is typed: where the file goes, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autolora.cli import run

CONFIG = "data: photos/\nmethod: at\nepochs: 3\nseed: 0\neps: 8/255\nnorm: Linf\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(folder: str) -> str:
    """Write a run that was interrupted after its first epoch."""
    path = Path(folder)
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(CONFIG)
    row = {"epoch": 1, "lr": 0.01, "adversarial": 1.2, "val_natural": 0.4, "val_robust": 0.3, "seconds": 2.0}
    (path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def test_one_run_goes_into_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", write("runs/a b")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("report  runs/a b/report.html  (0.") and err == ""
    page = Path("runs/a b/report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "autolora report &#39;runs/a b&#39;" in page


def test_several_runs_go_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", write("a"), write("b"), "--quiet", "--no-gallery"]) == 0
    assert capsys.readouterr() == ("", "")
    assert "2 runs side by side" in Path("report.html").read_text(encoding="utf-8")
    assert "autolora report a b --no-gallery" in Path("report.html").read_text(encoding="utf-8")


def test_out_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", write("a"), "--out", "new/page.HTM", "--quiet"]) == 0
    assert Path("new/page.HTM").is_file() and not Path("a/report.html").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no run given"),
        (["nowhere"], "nowhere holds no run: neither result.json nor config.yaml"),
        (["a", "a"], "a is given twice"),
        (["a", "--out", "a/result.json"], "a report is a file of HTML"),
        (["a", "--out", "page"], "has no suffix"),
        (["a", "--out", "folder.html"], "is a folder"),
        (["a", "--device", "tpu"], "device"),
        (["a", "--galery"], "--galery is unknown"),
    ],
)
def test_mistakes_get_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("a")
    Path("folder.html").mkdir()
    assert run(["report", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1 and err.startswith("autolora: ")
    assert not list(Path("a").glob("*.html"))


def test_an_old_report_is_replaced_whole(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(write("a"))
    (folder / "report.html").write_text("old")
    assert run(["report", "a", "--quiet"]) == 0
    assert (folder / "report.html").read_text(encoding="utf-8").endswith("</html>\n")
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "metrics.jsonl", "report.html"]
