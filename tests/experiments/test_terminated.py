"""SIGTERM at awkward moments: every command ends with 143 and one line, and leaves no part of a file under its name."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from killed_runs import Point, command

TINY = "--model resnet20_cifar --weights none --image-size 12 --epochs 1 --attack pgd-1 --batch-size 10"
PLAIN = [*TINY.split(), "--device", "cpu", "--precision", "fp32", "--quiet"]
OPTIONS = [*PLAIN, "--rank", "2"]
INTERRUPTED = "autolora: interrupted"
SIGTERM = signal.SIGTERM


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert command(["fit", str(photos), *OPTIONS, "--out", "run"], folder) == (0, "")
    return folder / "run"


def left(folder: Path) -> list[str]:
    """Files and folders but for what was said."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != "stderr")


@pytest.mark.parametrize(
    ("argv", "point"),
    [
        (["fit", "PHOTOS", *OPTIONS, "--out", "out"], Point("decode", 5, SIGTERM)),
        (["pretrain", "PHOTOS", *PLAIN, "--schedule-options.warmup", "0", "--out", "out"], Point("decode", 1, SIGTERM)),
        (["quickstart", "--out", "out", "--quiet"], Point("begin run", 1, SIGTERM)),
        (["evaluate", "RUN", "--device", "cpu", "--out", "out"], Point("decode", 3, SIGTERM)),
        (["doctor", "RUN", "--device", "cpu"], Point("decode", 3, SIGTERM)),
        (["report", "RUN", "--out", "out.html", "--device", "cpu"], Point("decode", 3, SIGTERM)),
        (["report", "RUN", "--out", "out.html", "--no-gallery"], Point("replace", 1, SIGTERM)),
        (["export", "RUN", "--format", "timm", "--out", "out"], Point("card", 1, SIGTERM)),
        (["export", "RUN", "--format", "timm", "--out", "out"], Point("rename", 1, SIGTERM)),
        (["suite", "table", "loft.T1", "--out", "out.md"], Point("replace", 1, SIGTERM)),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else f"{value.operation} {value.number}",
)
def test_nothing_is_left_of_what_had_not_begun_or_was_not_whole(
    argv: list[str], point: Point, photos: Path, finished: Path, tmp_path: Path
) -> None:
    places = {"PHOTOS": str(photos), "RUN": str(finished)}
    code, said = command([places.get(word, word) for word in argv], tmp_path, point)
    lines = [line for line in said.splitlines() if line.startswith("autolora:") or "Traceback" in line]
    assert code == 143, said
    assert len(lines) == 1 and lines[0].startswith(INTERRUPTED)
    assert left(tmp_path) == []


def test_sigterm_while_torch_is_imported(photos: Path, tmp_path: Path) -> None:
    """The command line imports torch late, in the middle of a command; an import that is broken off is no excuse."""
    code = f"""
import os, signal, sys
class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == "torch.optim":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, AtImport())
from autolora.cli import main
main(["fit", {str(photos)!r}, "--out", "out"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 143, done.stderr
    assert done.stderr.splitlines() == ["autolora: interrupted"]
    assert left(tmp_path) == []


def test_a_parser_that_is_interrupted_says_so_too(tmp_path: Path) -> None:
    code = """
import os, signal
import autolora.cli
autolora.cli._parser = lambda: os.kill(os.getpid(), signal.SIGTERM)
autolora.cli.main(["fit", "digits"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (143, "autolora: interrupted before anything was written\n")


@pytest.mark.parametrize(("operation", "number"), [("replace", 4), ("replace", 8), ("fsync", 13)])
def test_while_results_are_written_each_is_whole_or_not_there(
    operation: str, number: int, photos: Path, finished: Path, tmp_path: Path
) -> None:
    """From the first checkpoint to the result: a name stands for the whole file or for nothing."""
    code, said = command(["fit", str(photos), *OPTIONS, "--out", "out"], tmp_path, Point(operation, number, SIGTERM))
    assert code == 143 and "Traceback" not in said
    for path in (tmp_path / "out").rglob("*.json"):
        json.loads(path.read_text())
    weights = tmp_path / "out" / "model" / "model.safetensors"
    if weights.exists():
        assert weights.read_bytes() == (finished / "model" / "model.safetensors").read_bytes()
    assert not (tmp_path / "out" / "result.json").exists()
