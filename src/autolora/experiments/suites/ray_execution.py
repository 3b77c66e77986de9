"""Do what is left of a suite's runs on the machines of a Ray cluster, each run in a process of its own as ever.

A Ray task does on some machine what the local executor does here: it holds the run's lock, runs its commands and notes
how they ended. So the folder of runs, and data and weights that were given as paths, have to be on a file system that
all machines share. Ray decides where and when; Ctrl-C here cancels, and what has begun is saved.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from autolora.errors import InputError
from autolora.experiments.suites.execution import LocalExecutor, Task, told
from autolora.experiments.suites.store import Store

logger = logging.getLogger(__name__)

GLANCE = 0.2  # seconds between two looks at whether somebody wants to stop
FAREWELL = 600  # seconds in which a run that is cancelled can save


@dataclass(frozen=True)
class RayExecutor:
    """Tasks of a Ray cluster: the one that ``RAY_ADDRESS`` names, or one of this machine alone.

    Args:
        at_once: How many runs, over all machines. The processors, and GPUs where there are any, are shared among them.
        program: What runs ``autolora``.

    Raises:
        InputError: If Ray is not installed, or its cluster does not answer.
    """

    at_once: int = 1
    program: tuple[str, ...] = (sys.executable, "-m", "autolora")

    def __call__(self, tasks: Sequence[Task], store: Store) -> None:
        """Do all tasks, ``at_once`` of them at a time, in order."""
        if not tasks:
            return
        ray = _connected()
        do = ray.remote(max_retries=0, **self._share(ray.cluster_resources()))(_do)
        left, living, ended = list(tasks), dict[Any, Task](), 0
        try:
            while left or living:
                while left and len(living) < self.at_once:
                    task = left.pop(0)
                    logger.info(f"{task.job.name}: asked of Ray; what it says is in {store.log(task.job)}")
                    living[do.remote(task, store.folder, self.program, Path.cwd())] = task
                for ready in ray.wait(list(living), timeout=GLANCE)[0]:
                    task = living.pop(ready)
                    ray.get(ready)  # what went wrong in Ray, not in a run
                    ended += 1
                    mark = store.mark(task.job)
                    how = told(mark) if mark is not None else "another process is at it"
                    logger.info(f"[{ended}/{len(tasks)}] {task.job.name}: {how}")
        except KeyboardInterrupt:
            _cancel(ray, list(living))
            raise

    def _share(self, resources: dict[str, float]) -> dict[str, float]:
        """Return what a run is given: an equal part of the processors, and of the GPUs one at most."""
        share = {"num_cpus": max(1, int(resources.get("CPU", 1)) // self.at_once)}
        gpus = resources.get("GPU", 0) / self.at_once
        return share | ({"num_gpus": 1 if gpus >= 1 else round(gpus, 4)} if gpus else {})


def _connected() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "--executor ray needs Ray; install it with: pip install '.[ray]' in a clone, or uv sync --extra ray"
        ) from error
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody was asked whether this may be told
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            address = os.environ.get("RAY_ADDRESS")
            raise InputError(f"the Ray cluster at RAY_ADDRESS={address} does not answer: {error}") from error
    return ray


def _do(task: Task, folder: Path, program: tuple[str, ...], place: Path) -> None:
    """Do a task on the machine that Ray has chosen; paths that were given are relative to ``place``."""
    os.chdir(place)
    try:
        LocalExecutor(1, program)([task], Store(folder))
    except KeyboardInterrupt:  # it is noted in the store; to Ray it would be an error of the worker
        return


def _cancel(ray: ModuleType, living: Sequence[Any]) -> None:
    """Interrupt what runs, once each, and let it save. A task that has not begun never does."""
    for each in living:
        ray.cancel(each, force=False)
    if living:
        ray.wait(list(living), num_returns=len(living), timeout=FAREWELL)
