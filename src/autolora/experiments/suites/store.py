"""The folder that all suites share: run folders by name, and marks of what happened to those that did not finish."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from autolora.errors import InputError
from autolora.experiments.result import EVALUATION, RESULT, RunResult, write_json
from autolora.experiments.suites.grid import Job

DEFAULT = Path("runs/suites")


class State(Enum):
    """What there is of a run."""

    MISSING = "missing"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    FINISHED = "finished"


@dataclass(frozen=True)
class Mark:
    """What is noted about a run that was begun.

    Args:
        state: How it ended, or ``RUNNING``: if nobody holds its lock any more, it was killed.
        message: The last thing it said, if it failed.
        exit: Its exit code.
    """

    state: State
    message: str = ""
    exit: int | None = None


@dataclass(frozen=True)
class Store:
    """Runs in a folder: ``NAME/`` is a run, ``.suite/`` holds marks, locks and what the runs printed.

    Args:
        folder: Where it is.
    """

    folder: Path = DEFAULT

    def path(self, job: Job) -> Path:
        """Return the run folder."""
        return self.folder / job.name

    def evaluation(self, job: Job, attack: str) -> Path:
        """Return the folder of an evaluation, which is where ``autolora evaluate RUN`` puts it by itself."""
        return self.path(job) / "evaluation" / attack

    @property
    def logs(self) -> Path:
        """Return the folder of what is noted about runs, and of what they printed."""
        return self.folder / ".suite"

    def data(self, name: str) -> Path:
        """Return the folder of data that were laid out for runs."""
        return self.logs / "data" / name

    def log(self, job: Job) -> Path:
        """Return the file that holds what the run printed."""
        return self.logs / f"{job.name}.log"

    def lock(self, job: Job) -> Path:
        """Return the file that the process of a run holds a lock on for as long as it lives."""
        return self.logs / f"{job.name}.lock"

    def state(self, job: Job) -> State:
        """Return what there is of a run. Only a finished one is ever read.

        Raises:
            InputError: If its folder holds another run.
        """
        if self.result(job) is not None:
            return State.FINISHED
        mark = self.mark(job)
        if is_locked(self.lock(job)):
            return State.RUNNING
        if mark is not None and mark.state is State.FAILED:
            return State.FAILED
        return State.INTERRUPTED if mark is not None or self.path(job).exists() else State.MISSING

    def result(self, job: Job) -> RunResult | None:
        """Return what a finished run found, or None: ``result.json`` is written last, so others have none.

        Raises:
            InputError: If the folder holds another run, or a file that is no result.
        """
        path = self.path(job) / RESULT
        if not path.is_file():
            return None
        try:
            result = RunResult.read(path.parent)
            complete = result.content["status"] == "complete"
            same = job.is_run_of(result.content["config"])
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path} is no result of a run; move {path.parent} away, and run the suite again"
            ) from None
        if not same:
            raise InputError(
                f"{path.parent} holds a run of another configuration than its name says; move it away, and run the "
                "suite again"
            )
        return result if complete else None

    def unasked(self, job: Job, attacks: Iterable[str]) -> list[str]:
        """Return the attacks that a run has not been evaluated with."""
        return [attack for attack in attacks if not (self.evaluation(job, attack) / EVALUATION).is_file()]

    def mark(self, job: Job) -> Mark | None:
        """Return what is noted about a run."""
        with suppress(FileNotFoundError, ValueError, KeyError):
            content: Mapping[str, Any] = json.loads(self._mark(job).read_text(encoding="utf-8"))
            return Mark(State(content["state"]), content["message"], content["exit"])
        return None

    def note(self, job: Job, mark: Mark) -> None:
        """Note something about a run."""
        write_json(self._mark(job), {"state": mark.state.value, "message": mark.message, "exit": mark.exit})

    def _mark(self, job: Job) -> Path:
        return self.logs / f"{job.name}.json"


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock on a file."""
    if not path.is_file():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
