"""The main job, for real: the quickstart on the packaged backbone, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest
import torch

import autolora
from autolora.data import load_splits, loader
from autolora.evaluation import accuracy


def worked() -> float:
    """Return the seconds of processor time that processes started here have taken, as far as they have ended."""
    usage = getrusage(RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.slow
def test_quickstart_shows_what_robustness_is(tmp_path: Path) -> None:
    before = worked()
    command = [str(Path(sys.executable).with_name("autolora")), "quickstart", "--out", "first"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}  # other tests have the second core
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=offline)
    assert done.returncode == 0, done.stderr
    seconds = worked() - before

    result = json.loads((tmp_path / "first" / "result.json").read_text())
    control = json.loads((tmp_path / "first" / "control" / "result.json").read_text())
    robust, fragile = (run["scores"]["pgd-10"]["accuracy"] for run in (result, control))
    assert robust >= 0.80
    assert robust - fragile >= 0.30
    assert control["scores"]["natural"]["accuracy"] >= 0.85  # the control has learnt its task: it is only not robust
    assert "AutoLoRa" in done.stdout and "natural fine-tuning" in done.stdout
    for run in (result, control):
        fast = run["scores"]["autoattack-fast"]
        assert fast["total"] == 40 and "upper bound" in fast["label"] and fast["flags"] == []
    assert "sample of 40 images" in done.stdout
    assert "report     first/report.html" in done.stdout
    assert 2e5 < (tmp_path / "first/report.html").stat().st_size < 5e6  # of ten classes, with images
    assert result["scores"]["autoattack-fast"]["correct"] > control["scores"]["autoattack-fast"]["correct"]
    assert seconds < 500, "230 s of one core; this only catches what is far off, whatever else is at work"

    test = load_splits("digits", image_size=result["config"]["image_size"], progress=False).test
    with torch.no_grad():
        found = accuracy(autolora.load(tmp_path / "first"), loader(test, 256))
    assert found.accuracy == result["scores"]["natural"]["accuracy"]
