"""Run what is missing of suites: first the backbones, then the runs that start from them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autolora.errors import RunError
from autolora.experiments.suites.commands import laid_out, lay_out, steps
from autolora.experiments.suites.execution import Executor, LocalExecutor, Task, told
from autolora.experiments.suites.grid import Job, Plan
from autolora.experiments.suites.metrics import attacks_to_ask
from autolora.experiments.suites.places import Places
from autolora.experiments.suites.ray_execution import RayExecutor
from autolora.experiments.suites.settings import Options
from autolora.experiments.suites.store import Mark, State, Store

logger = logging.getLogger(__name__)

EXECUTORS: dict[str, Callable[[int], Executor]] = {"local": LocalExecutor, "ray": RayExecutor}  # by how many at once


@dataclass(frozen=True)
class Work:
    """What is left to do of one or several suites.

    Args:
        backbones: Tasks that come first.
        runs: Tasks that may wait for them.
        failed: Runs that have failed before, and how; they are left alone.
        running: Runs that another process is at.
        finished: How many runs there are already, backbones among them.
    """

    backbones: tuple[Task, ...]
    runs: tuple[Task, ...]
    failed: tuple[tuple[Job, Mark], ...]
    running: tuple[Job, ...]
    finished: int

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Return all tasks, in order."""
        return self.backbones + self.runs


def work_left(
    plans: Sequence[Plan],
    store: Store,
    places: Places,
    *,
    retry: bool = False,
    evaluate: bool = True,
    compile: str | None = None,
) -> Work:
    """Find out what is missing.

    Args:
        plans: The suites.
        store: What there is.
        places: Where data and weights lie.
        retry: Continue runs that have failed, too.
        evaluate: Ask for the attacks that a suite's table needs and ``fit`` does not measure.
        compile: What runs that are begun get as ``fit``'s option of that name; None: its default.

    Raises:
        InputError: If data or weights have not been provided for what is missing.
    """
    wanted = _wanted(plans, evaluate=evaluate)
    left = [task for job, attacks in wanted if (task := _task(job, attacks, store, places, compile)) is not None]
    failed = [] if retry else [(task.job, mark) for task in left if (mark := _failure(task.job, store)) is not None]
    running = [task.job for task in left if store.state(task.job) is State.RUNNING]
    skipped = {job.name for job in (*(job for job, _ in failed), *running)}
    todo = [task for task in left if task.job.name not in skipped]
    places.check(task.job for task in todo)
    first = {job.name for item in plans for job in item.backbones}
    return Work(
        tuple(task for task in todo if task.job.name in first),
        tuple(task for task in todo if task.job.name not in first),
        tuple(failed),
        tuple(running),
        len(wanted) - len(left),
    )


def run_suites(work: Work, store: Store, places: Places, executor: Executor) -> None:
    """Do what is left.

    Raises:
        InputError: If data cannot be laid out as a protocol needs them.
        RunError: If a run failed, now or before, or was interrupted by somebody else; it is kept, marked, and never
            read.
        KeyboardInterrupt: If this was interrupted; the runs that had begun go on the next time.
    """
    to_lay_out = {laid_out(task.job, places): task.job for task in work.runs if task.job.selects_on_test}
    for name, job in to_lay_out.items():
        logger.info(f"data: {store.data(name)}, whose validation images are the test images")
        lay_out(job, store, places)
    executor(work.backbones, store)
    ready = [task for task in work.runs if task.job.backbone is None or store.result(task.job.backbone) is not None]
    executor(ready, store)
    _report(work, store, len(work.runs) - len(ready))


def _report(work: Work, store: Store, waiting: int) -> None:
    """Say which runs there are not, if any."""
    marks = [mark for task in work.tasks if (mark := store.mark(task.job)) is not None]
    troubles = [mark for mark in marks if mark.state is not State.FINISHED] + [mark for _, mark in work.failed]
    if troubles or waiting:
        first = f", the first: {told(troubles[0])}" if troubles else ""
        waits = f"; {waiting} wait for a backbone that is not there" if waiting else ""
        count = len(work.tasks) + len(work.failed)
        raise RunError(f"{len(troubles)} of {count} runs did not finish{first}{waits}; see {store.logs}/NAME.log")


def _wanted(plans: Sequence[Plan], *, evaluate: bool) -> list[tuple[Job, dict[str, Options]]]:
    """Return each run once, with the attacks that any of the suites asks for and how, backbones in front."""
    jobs: dict[str, Job] = {job.name: job for item in plans for job in item.backbones}
    attacks: dict[str, dict[str, Options]] = {name: {} for name in jobs}
    for item in plans:
        asked = attacks_to_ask(item.suite.metrics) if evaluate else []
        for job in item.jobs:
            jobs[job.name] = job
            attacks.setdefault(job.name, {}).update(dict.fromkeys(asked, item.settings.evaluation))
    return [(job, attacks[name]) for name, job in jobs.items()]


def _task(job: Job, attacks: Mapping[str, Options], store: Store, places: Places, compile: str | None) -> Task | None:
    left = steps(job, store, places, attacks, compile)
    return Task(job, tuple(left)) if left else None


def _failure(job: Job, store: Store) -> Mark | None:
    mark = store.mark(job)
    return mark if mark is not None and mark.state is State.FAILED else None
