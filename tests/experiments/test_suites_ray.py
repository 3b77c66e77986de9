"""Runs on a Ray cluster of this machine: done, marked and interrupted as without it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autolora.errors import InputError
from autolora.experiments.suites.commands import steps
from autolora.experiments.suites.execution import Task
from autolora.experiments.suites.grid import Job
from autolora.experiments.suites.places import Places
from autolora.experiments.suites.ray_execution import RayExecutor
from autolora.experiments.suites.store import State, Store

# stands for `autolora`: `fit DATA ... --out FOLDER --resume`, where DATA says what becomes of it
PROGRAM = """
import json, os, pathlib, signal, sys, time
verb, data, *words = sys.argv[1:]
out = pathlib.Path(words[words.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
if data == "fails":
    sys.exit("autolora: a loss is not finite")
def save(*_):
    (out / "saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
(out / "begun").touch()
time.sleep(60 if data == "hangs" else 0)
pairs = {word[2:].replace("-", "_"): words[n + 1] for n, word in enumerate(words[:-1]) if word.startswith("--")}
config = {"data": data, "seed": int(pairs["seed"]), "method": pairs["method"], "out": str(out)}
(out / "threads").write_text(os.environ.get("OMP_NUM_THREADS", ""))
(out / "result.json").write_text(json.dumps({"status": "complete", "config": config}))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="no Ray: pip install 'autolora[ray]'")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture
def executor(tmp_path: Path) -> RayExecutor:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return RayExecutor(2, (sys.executable, str(path)))


def job(data: str, seed: int = 0) -> Job:
    return Job({"data": data, "method": "at", "seed": seed}, title=data)


def task(work: Job, store: Store) -> Task:
    return Task(work, tuple(steps(work, store, Places({}))))


def test_runs_are_done_and_marked(
    cluster: None, executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is relative to where the command was given, which is not where Ray's workers are."""
    monkeypatch.chdir(tmp_path)
    store, jobs = Store(Path("runs")), [job("good"), job("fails"), job("better")]
    executor([task(each, store) for each in jobs], store)
    assert [store.state(each) for each in jobs] == [State.FINISHED, State.FAILED, State.FINISHED]
    mark = store.mark(jobs[1])
    assert mark is not None and mark.message == "autolora: a loss is not finite"
    assert (tmp_path / "runs" / jobs[0].name / "threads").read_text() == "1"  # half of the cluster's processors


def test_ctrl_c_lets_what_has_begun_save_and_begins_no_more(
    cluster: None, executor: RayExecutor, tmp_path: Path
) -> None:
    store, jobs = Store(tmp_path / "runs"), [job("hangs", seed) for seed in (0, 1, 2)]

    def interrupt() -> None:
        end = time.monotonic() + 60
        while len(list(store.folder.glob("*/begun"))) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        executor([task(each, store) for each in jobs], store)
    thread.join()
    assert [store.state(each) for each in jobs] == [State.INTERRUPTED, State.INTERRUPTED, State.MISSING]
    assert len(list(store.folder.glob("*/saved"))) == 2


def test_without_ray_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    store = Store(tmp_path)
    with pytest.raises(InputError, match=r"pip install '\.\[ray\]'"):
        RayExecutor()([task(job("good"), store)], store)
    RayExecutor()([], store)  # nothing to do needs nothing
