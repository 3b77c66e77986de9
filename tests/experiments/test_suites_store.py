"""Runs that end well, fail, or are killed: how they are marked, what is read of them, and what goes on later."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autolora.data import load_splits
from autolora.errors import InputError
from autolora.experiments.config import RunConfig, to_yaml
from autolora.experiments.result import CONFIG
from autolora.experiments.selection import LABEL
from autolora.experiments.suites.commands import laid_out, lay_out, steps
from autolora.experiments.suites.execution import LocalExecutor, Task
from autolora.experiments.suites.grid import Job
from autolora.experiments.suites.layout import validated_on_test
from autolora.experiments.suites.measured import read_measured
from autolora.experiments.suites.places import Places
from autolora.experiments.suites.store import State, Store

# stands for `autolora`: `fit DATA ... --out FOLDER --resume`, where DATA says what becomes of it
PROGRAM = """
import json, os, pathlib, sys, time
verb, data, *words = sys.argv[1:]
out = pathlib.Path(words[words.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
with (out / "begun").open("a") as file:
    file.write("x")
if data == "fails":
    sys.exit("autolora: a loss is not finite")
if data == "hangs" and len((out / "begun").read_text()) == 1:
    time.sleep(60)
pairs = {word[2:].replace("-", "_"): words[n + 1] for n, word in enumerate(words[:-1]) if word.startswith("--")}
config = {"data": data, "seed": int(pairs["seed"]), "method": pairs["method"], "out": str(out)}
(out / "threads").write_text(os.environ.get("OMP_NUM_THREADS", ""))
(out / "result.json").write_text(json.dumps({"status": "complete", "config": config}))
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def program(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return sys.executable, str(path)


def job(data: str, seed: int = 0) -> Job:
    return Job({"data": data, "method": "at", "seed": seed}, title=data)


def task(work: Job, store: Store) -> Task:
    return Task(work, tuple(steps(work, store, Places({}))))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def has_begun(folder: Path) -> bool:
    return (folder / "begun").is_file() and (folder / "begun").read_text() == "x"


def test_a_run_that_ends_well_is_finished(store: Store, program: tuple[str, ...]) -> None:
    good = job("good")
    assert store.state(good) is State.MISSING
    LocalExecutor(1, program)([task(good, store)], store)
    assert store.state(good) is State.FINISHED
    assert steps(good, store, Places({})) == []
    result = store.result(good)
    assert result is not None and result.content["config"]["seed"] == 0


def test_what_another_process_has_done_meanwhile_is_not_done_again(store: Store, program: tuple[str, ...]) -> None:
    """Two processes plan the same runs; `fit` refuses to write over a finished one, which is no failure of the run."""
    good = job("good")
    planned = task(good, store)
    LocalExecutor(1, program)([planned], store)
    LocalExecutor(1, program)([planned], store)
    assert (store.path(good) / "begun").read_text() == "x"
    mark = store.mark(good)
    assert mark is not None and mark.state is State.FINISHED


def test_a_run_that_fails_is_kept_and_marked(store: Store, program: tuple[str, ...]) -> None:
    bad, good = job("fails"), job("good")
    LocalExecutor(1, program)([task(bad, store), task(good, store)], store)
    mark = store.mark(bad)
    assert store.state(bad) is State.FAILED and store.state(good) is State.FINISHED
    assert mark is not None and (mark.message, mark.exit) == ("autolora: a loss is not finite", 1)
    assert store.path(bad).is_dir() and store.result(bad) is None and read_measured(bad, store) is None
    assert "$ autolora fit fails" in store.log(bad).read_text()


def test_a_killed_run_is_not_read_and_goes_on(store: Store, program: tuple[str, ...]) -> None:
    """Killed with SIGKILL, so that it could not say anything: the lock that nobody holds tells."""
    slow = job("hangs")
    executor = LocalExecutor(1, program)
    thread = threading.Thread(target=executor, args=([task(slow, store)], store))
    thread.start()
    wait_for(lambda: has_begun(store.path(slow)))
    assert store.state(slow) is State.RUNNING
    (process,) = executor._living
    process.kill()
    thread.join()
    assert store.state(slow) is State.INTERRUPTED
    assert store.result(slow) is None and read_measured(slow, store) is None
    LocalExecutor(1, program)([task(slow, store)], store)
    assert store.state(slow) is State.FINISHED
    assert (store.path(slow) / "begun").read_text() == "xx"


def test_a_run_is_begun_compiled_if_asked_and_goes_on_as_it_was_begun(store: Store) -> None:
    """``fit`` continues no run in another form, so what is asked for later is for the runs that begin later."""
    begun, new = job("begun"), job("new")
    store.path(begun).mkdir(parents=True)
    (store.path(begun) / CONFIG).write_text(to_yaml(RunConfig("begun", compile="attack")))

    def compiled(work: Job, asked: str | None) -> str | None:
        (step,) = steps(work, store, Places({}), compile=asked)
        words = step.command
        return words[words.index("--compile") + 1] if "--compile" in words else None

    assert [compiled(new, asked) for asked in ("attack", "on", None)] == ["attack", "on", None]
    assert [compiled(begun, asked) for asked in ("attack", "on", None)] == ["attack", "attack", "attack"]


def test_a_run_whose_parent_was_killed_is_interrupted_once_it_is_gone(store: Store) -> None:
    """What is left then is the mark that it was running, and a lock that nobody holds."""
    lost = job("lost")
    store.lock(lost).parent.mkdir(parents=True)
    store.lock(lost).touch()
    (store.logs / f"{lost.name}.json").write_text(json.dumps({"state": "running", "message": "", "exit": None}))
    assert store.state(lost) is State.INTERRUPTED


def test_a_run_is_locked_for_as_long_as_its_own_process_lives(store: Store, program: tuple[str, ...]) -> None:
    """Also when what started it is gone: here it lets go of the lock while the run's process lives on."""
    slow, executor = job("hangs"), LocalExecutor(1, program)
    (step,) = steps(slow, store, Places({}))
    store.lock(slow).parent.mkdir(parents=True)
    with store.lock(slow).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=executor._process, args=(step.command, store.log(slow), lock.fileno()))
        thread.start()
        wait_for(lambda: has_begun(store.path(slow)))
    assert store.state(slow) is State.RUNNING
    (process,) = executor._living
    process.kill()
    thread.join()
    assert store.state(slow) is State.INTERRUPTED


def test_a_finished_run_whose_result_is_gone_is_not_finished(store: Store, program: tuple[str, ...]) -> None:
    good = job("good")
    LocalExecutor(1, program)([task(good, store)], store)
    (store.path(good) / "result.json").unlink()
    assert store.state(good) is State.INTERRUPTED and steps(good, store, Places({})) != []


def test_a_run_that_another_process_is_at_is_left_alone(store: Store, program: tuple[str, ...]) -> None:
    other = job("good")
    store.lock(other).parent.mkdir(parents=True)
    holder = "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{holder}; time.sleep(60)", str(store.lock(other))], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        assert store.state(other) is State.RUNNING
        LocalExecutor(1, program)([task(other, store)], store)
        assert not store.path(other).exists()
        process.kill()
    assert store.state(other) is State.MISSING


def test_ctrl_c_interrupts_what_runs_and_begins_nothing_more(store: Store, program: tuple[str, ...]) -> None:
    slow, next_one = job("hangs"), job("good")

    def interrupt() -> None:
        wait_for(lambda: has_begun(store.path(slow)))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        LocalExecutor(1, program)([task(slow, store), task(next_one, store)], store)
    assert store.state(slow) is State.INTERRUPTED and store.state(next_one) is State.MISSING


def test_several_at_once_share_the_cores(
    store: Store, program: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    jobs = [job("good", seed) for seed in range(3)]
    LocalExecutor(2, program)([task(item, store) for item in jobs], store)
    cores = len(os.sched_getaffinity(0))
    assert [(store.path(item) / "threads").read_text() for item in jobs] == [str(max(1, cores // 2))] * 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"status": "complete", "config": {"data": "good", "method": "ft", "seed": 0}}, "another configuration"),
        ({"status": "complete"}, "is no result of a run"),
    ],
)
def test_a_folder_that_holds_something_else(store: Store, content: dict[str, Any], said: str) -> None:
    good = job("good")
    store.path(good).mkdir(parents=True)
    (store.path(good) / "result.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        store.state(good)


def test_evaluations_that_are_missing_are_asked_for(store: Store, program: tuple[str, ...]) -> None:
    good = job("good")
    LocalExecutor(1, program)([task(good, store)], store)
    (step,) = steps(good, store, Places({}), {"autoattack": {"limit": 500}})
    command, folder = step.command, store.path(good)
    assert command[:4] == ("evaluate", str(folder), "--attack", "autoattack")
    assert command[-3:] == ("--limit", "500", "--resume")
    (folder / "evaluation" / "autoattack").mkdir(parents=True)
    assert steps(good, store, Places({}), {"autoattack": {"limit": 500}}) == [step]
    (folder / "evaluation" / "autoattack" / "evaluation.json").write_text("{}")
    assert steps(good, store, Places({}), {"autoattack": {"limit": 500}}) == []


# data whose validation images are the test images


def test_validation_images_are_the_test_images_and_the_data_say_so(photos: Path, tmp_path: Path) -> None:
    folder = validated_on_test(str(photos), tmp_path / "laid-out")
    given, changed = (load_splits(data, image_size=12, progress=False) for data in (photos, folder))
    assert any(LABEL in note for note in changed.notes) and not any(LABEL in note for note in given.notes)
    assert changed.classes == given.classes

    def pixels(splits: Any, name: str) -> Any:
        images = getattr(splits, name).with_augmentation(False)
        return images.__getitems__(list(range(len(images))))

    for a, b in (("val", "test"), ("test", "test")):
        for ours, theirs in zip(pixels(changed, a), pixels(given, b), strict=True):
            assert bool((ours == theirs).all())
    assert len(changed.train) == len(given.train) + len(given.val)


def test_data_from_an_archive_are_laid_out_once(photos: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    folder = validated_on_test(archive, tmp_path / "laid-out")
    before = sorted(path.name for path in (folder / "train" / "red").iterdir())
    assert len(before) == 12 and (folder / "val").resolve() == (folder / "test").resolve()
    os.remove(archive)
    assert validated_on_test(archive, tmp_path / "laid-out") == folder
    assert sorted(path.name for path in (folder / "train" / "red").iterdir()) == before


def test_a_layout_that_was_interrupted_is_made_again(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "laid-out" / "train").mkdir(parents=True)
    folder = validated_on_test(str(photos), tmp_path / "laid-out")
    assert (folder / LABEL).is_dir() and len(list((folder / "test" / "red").iterdir())) == 6


def test_data_that_cannot_be_selected_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a way of its own"):
        validated_on_test("digits", tmp_path / "laid-out")
    for name in ("a", "b"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "classes" / name / f"{number}.png").write_bytes(b"")
    with pytest.raises(InputError, match="no test split"):
        validated_on_test(str(tmp_path / "classes"), tmp_path / "laid-out")


def test_a_run_that_selects_on_test_is_given_such_data(photos: Path, store: Store) -> None:
    work = Job({"data": "photos", "method": "at", "seed": 0}, selects_on_test=True, title="x")
    places = Places({}, {"photos": str(photos)})
    lay_out(work, store, places)
    (step,) = steps(work, store, places)
    data = step.command[1]
    assert Path(data) == store.data(laid_out(work, places)) and (Path(data) / LABEL).is_dir()
    assert work.name != Job(work.options, title="x").name
    elsewhere = Places({}, {"photos": str(photos) + "-moved"})
    assert laid_out(work, elsewhere) != laid_out(work, places)
