"""Do what is left of a suite's runs: as processes of their own, several at once, each marked by how it ended.

A process of a run holds a lock for as long as it lives, whatever becomes of this one: a second ``suite run`` leaves
its run alone, and a run whose lock nobody holds any more was killed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from autolora.experiments.suites.commands import Command, Step, as_shell
from autolora.experiments.suites.grid import Job
from autolora.experiments.suites.store import Mark, State, Store

logger = logging.getLogger(__name__)

INTERRUPTED = (130, 143, -signal.SIGINT, -signal.SIGTERM)  # exit codes of what Ctrl-C or SIGTERM has ended
ASK = signal.SIGTERM  # to save and end: what runs in the background may be deaf to SIGINT
GLANCE = 0.2  # seconds between two looks at whether somebody wants to stop


@dataclass(frozen=True)
class Task:
    """A run, and what is left to do for it, in order; somebody else may have done it meanwhile."""

    job: Job
    steps: tuple[Step, ...]


class Executor(Protocol):
    """What does tasks that do not wait for each other."""

    def __call__(self, tasks: Sequence[Task], store: Store) -> None:
        """Do all of them, and note in the store how each ended.

        Raises:
            KeyboardInterrupt: If it was interrupted; what had begun was interrupted too, and is noted so.
        """


@dataclass
class LocalExecutor:
    """Processes on this machine.

    Args:
        at_once: How many.
        program: What runs ``autolora``.
    """

    at_once: int = 1
    program: tuple[str, ...] = (sys.executable, "-m", "autolora")
    _living: set[subprocess.Popen[bytes]] = field(default_factory=set, init=False)
    _stopping: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __call__(self, tasks: Sequence[Task], store: Store) -> None:
        """Do all tasks, ``at_once`` of them at a time, in order."""
        done, futures = _Counter(len(tasks)), []
        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                for task in tasks:
                    futures.append(pool.submit(self._do, task, store, done))
                while wait(futures, GLANCE).not_done:  # a wait without an end would not hear Ctrl-C
                    pass
            except KeyboardInterrupt:
                self._stop(futures)
                raise
        for future in futures:
            future.result()  # what went wrong in this process, not in a run's

    def _stop(self, futures: Sequence[Future[None]]) -> None:
        """Interrupt what runs, once each, and let it save."""
        for future in futures:
            future.cancel()
        with self._lock:
            self._stopping = True
            for process in self._living:
                process.send_signal(ASK)

    def _do(self, task: Task, store: Store, done: _Counter) -> None:
        job = task.job
        path = store.lock(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info(f"{done.next()} {job.name}: another process is at it")
                return
            logger.info(f"{job.name}: begins; what it says is in {store.log(job)}")
            mark = self._run(task, store, lock.fileno())
            if mark is not None:
                store.note(job, mark)
        if mark is not None:
            logger.info(f"{done.next()} {job.name}: {told(mark)}")

    def _run(self, task: Task, store: Store, lock: int) -> Mark | None:
        """Do the steps of a task one after the other until one fails; None if they were not begun."""
        for step in task.steps:
            if self._stopping:
                return None
            if step.makes.is_file():  # another `suite run` came first, which held the lock until it was there
                continue
            store.note(task.job, Mark(State.RUNNING))
            code = self._process(step.command, store.log(task.job), lock)
            if code:
                return _ended(code, store.log(task.job))
        return Mark(State.FINISHED, exit=0)

    def _process(self, command: Command, log: Path, lock: int) -> int:
        with log.open("ab") as output:
            output.write(f"\n$ {as_shell(command)}\n".encode())
            output.flush()
            # in a session of its own: Ctrl-C in the terminal reaches this process alone, which asks it once
            process = subprocess.Popen(
                [*self.program, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
                pass_fds=(lock,),
            )
        with self._lock:
            self._living.add(process)
            if self._stopping:  # since the last look
                process.send_signal(ASK)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._living.discard(process)

    def _environment(self) -> dict[str, str]:
        """Share the cores among the processes, unless somebody has decided already."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        share = {} if self.at_once == 1 else {"OMP_NUM_THREADS": str(max(1, cores // self.at_once))}
        return {**share, **os.environ}


class _Counter:
    """Counts what has ended, from several threads."""

    def __init__(self, total: int) -> None:
        self.total, self.count, self.lock = total, 0, threading.Lock()

    def next(self) -> str:
        with self.lock:
            self.count += 1
            return f"[{self.count}/{self.total}]"


def told(mark: Mark) -> str:
    """Say how a run ended."""
    return mark.state.value + (f": {mark.message}" if mark.message else "")


def _ended(code: int, log: Path) -> Mark:
    """Say how a process ended that did not end well: a signal or its own exit code."""
    if code in INTERRUPTED:
        return Mark(State.INTERRUPTED, exit=code)
    if code < 0:
        return Mark(State.INTERRUPTED, f"killed by signal {-code}", code)
    return Mark(State.FAILED, _last_line(log), code)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else ""
