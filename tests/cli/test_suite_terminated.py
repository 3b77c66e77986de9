"""``autolora suite run`` that is asked to end: it passes that on, waits, and says how to go on."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from autolora.cli import main
from autolora.experiments.suites import running
from autolora.experiments.suites.execution import LocalExecutor

# stands for `autolora fit ... --out FOLDER`: says that it has begun, and when it is asked to end takes its time to save
PROGRAM = """
import pathlib, signal, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
def end(number, frame):
    time.sleep(0.3)
    (out / "saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
out.mkdir(parents=True)
(out / "begun").touch()
time.sleep(60)
"""
SUITE = {
    "id": "two", "paper": "ours", "title": "two runs", "grid": {"method": ["at", "ft"]}, "metrics": ["natural"],
    "settings": {"small": {
        "about": "digits", "seeds": [0, 1], "options": {"data": "digits"},
        "levels": {"method": {"at": {"method": "at"}, "ft": {"method": "ft"}}},
    }},
}  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_suite_that_is_ended_lets_its_runs_save(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a suite.yaml").write_text(yaml.safe_dump(SUITE))
    program = (sys.executable, "-c", PROGRAM)
    monkeypatch.setitem(running.EXECUTORS, "local", lambda at_once: LocalExecutor(at_once, program))
    argv = ["suite", "run", str(tmp_path / "a suite.yaml"), "--runs", str(tmp_path / "runs"), "--jobs", "2"]
    argv += ["--seeds", "0,1", "--quiet"]

    def end() -> None:
        until = time.monotonic() + 30
        while len(list(tmp_path.glob("runs/*/begun"))) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=end).start()
    with pytest.raises(SystemExit) as ended:
        main(argv)
    said = capsys.readouterr().err.splitlines()
    assert ended.value.code == code
    assert len(list(tmp_path.glob("runs/*/begun"))) == len(list(tmp_path.glob("runs/*/saved"))) == 2  # of four runs
    assert said[-1].startswith("autolora: interrupted; what is finished is kept")
    again = shlex.split(said[-1].partition("continue with: ")[2])
    assert again[0] == "autolora" and sorted(again[1:]) == sorted(argv)
