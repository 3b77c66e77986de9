"""Runs in processes of their own that can be killed: just before an operation happens for the n-th time."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

from autolora.attacks import PGD
from autolora.cli import main
from autolora.data import ImageSet, reading
from autolora.experiments import evaluating, quickstart
from autolora.experiments.export import exporting
from forked import LONG, context

# operations by name: whose attribute they are
POINTS: dict[str, tuple[Any, str]] = {
    "attack": (PGD, "__call__"),
    "draw": (ImageSet, "__getitems__"),
    "step": (torch.optim.SGD, "step"),
    "serialise": (torch, "save"),
    "fsync": (os, "fsync"),
    "rename": (Path, "rename"),
    "replace": (Path, "replace"),
    "link": (os, "link"),
    "remove": (shutil, "rmtree"),
    "decode": (reading, "decode"),
    "begin run": (quickstart, "run"),
    "card": (exporting, "model_card"),
    "corrupt": (evaluating, "corruption_scores"),
    "write text": (Path, "write_text"),
}


class Point(NamedTuple):
    """The moment before an operation happens for the n-th time, from 1, and the signal that comes then."""

    operation: str
    number: int
    signal: int = signal.SIGKILL
    delay: float = 0.0  # seconds that pass before it comes


def start(argv: Sequence[str], folder: Path, *points: Point) -> BaseProcess:
    """Start the command line in a folder; what it says on stderr goes to the file ``stderr`` there."""
    process = context().Process(target=_command, args=(list(argv), folder, points))
    process.start()
    return process


def command(argv: Sequence[str], folder: Path, *points: Point) -> tuple[int, str]:
    """Run the command line in a folder; return its exit code, below zero if a signal killed it, and its stderr."""
    process = start(argv, folder, *points)
    process.join(LONG)
    code = process.exitcode
    process.kill()
    assert code is not None, "still at work"
    return code, (folder / "stderr").read_text()


def _command(argv: list[str], folder: Path, points: tuple[Point, ...]) -> None:
    os.chdir(folder)
    descriptor = os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background ignores
    torch.set_num_threads(1)
    if sys.platform == "linux":  # the processes that load images die with theirs, as those of the command line do
        multiprocessing.set_start_method("fork", force=True)
    for point in points:
        owner, name = POINTS[point.operation]
        setattr(owner, name, _armed(getattr(owner, name), point))
    main(argv)


def _armed(action: Callable[..., Any], point: Point) -> Callable[..., Any]:
    calls = []

    def operation(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == point.number:
            time.sleep(point.delay)
            os.kill(os.getpid(), point.signal)
        return action(*arguments, **options)

    return operation
