"""What a user sees and keeps when a run is killed, interrupted, or meets a fault of the machine."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from killed_runs import Point, command, start
from PIL import Image
from safetensors.torch import save_file
from several_processes import wait_for

from autolora.cli import run as command_line
from autolora.data import pixels
from autolora.errors import InputError, RunError
from autolora.evaluation import shards
from autolora.experiments import run as run_module
from autolora.experiments.config import RunConfig, config_from, read_yaml
from autolora.experiments.faults import explained
from autolora.experiments.result import RunResult
from autolora.experiments.run import run
from autolora.experiments.run_lock import LOCK, Owner, locked, owner
from autolora.methods import FT
from autolora.training import Checkpoints

TINY = "--model resnet20_cifar --weights none --image-size 12 --epochs 2 --attack pgd-1 --batch-size 10 --lr 0.05"
TINY += " --rank 2 --device cpu --precision fp32 --quiet --out run"
EVERY_BATCH = 1e-9  # minutes
BATCHES = 2  # in an epoch


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the processes that are killed have; and Ctrl-C works, also where these tests run in the background."""
    before = torch.get_num_threads(), signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    signal.signal(signal.SIGINT, before[1])


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted; tests only read it."""
    folder = tmp_path_factory.mktemp("whole")
    code, err = command(["fit", str(photos), *TINY.split()], folder)
    assert (code, err) == (0, "")
    return folder / "run"


@pytest.fixture
def config(photos: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    def make(**options: Any) -> RunConfig:
        tiny = {"model": "resnet20_cifar", "weights": "none", "image_size": 12, "epochs": 2, "attack": "pgd-1"}
        base = {"batch_size": 10, "lr": 0.05, "rank": 2, "device": "cpu", "precision": "fp32"}
        return config_from({"data": photos, **tiny, **base, "out": str(tmp_path / "run"), **options})

    return make


def metrics(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "second" not in name and name != "waiting"} for row in rows]


def assert_same(ours: Path, theirs: Path) -> None:
    for name in ("model/model.safetensors", "evaluation/verdicts.csv"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    assert metrics(ours) == metrics(theirs)


def one_line(err: str) -> str:
    """Return the only line, which is no traceback."""
    (line,) = [line for line in err.splitlines() if line and not line.startswith("autolora: Ctrl-C")]
    assert line.startswith("autolora: ") and "Traceback" not in line
    return line


# killed


@pytest.mark.parametrize(
    "point",
    [
        Point("attack", 2),  # in the middle of the second batch
        Point("step", 4),
        Point("fsync", 9),  # in the middle of a checkpoint within an epoch
        Point("rename", 5),  # between two names of a checkpoint
        Point("attack", 2 * (BATCHES + 1)),  # the last validation
        Point("replace", 7),  # a file of the result
    ],
    ids=lambda point: f"{point.operation} {point.number}",
)
def test_killed_and_resumed_is_uninterrupted(photos: Path, whole: Path, tmp_path: Path, point: Point) -> None:
    argv = ["fit", str(photos), *TINY.split(), "--checkpoint-minutes", str(EVERY_BATCH)]
    assert command(argv, tmp_path, point)[0] == -signal.SIGKILL
    assert not (tmp_path / "run" / "result.json").exists()
    code, err = command([*argv, "--resume"], tmp_path)
    assert (code, err) == (0, "")
    assert_same(tmp_path / "run", whole)
    assert not any(path.name.startswith(".") for path in (tmp_path / "run").rglob("*"))


# interrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(
    photos: Path, whole: Path, tmp_path: Path, number: int, code: int
) -> None:
    argv = ["fit", str(photos), *TINY.split()]
    ended, err = command(argv, tmp_path, Point("attack", BATCHES + 2, number))  # the first batch of the second epoch
    assert ended == code
    said, line = (line for line in err.splitlines() if line)
    assert said.startswith("autolora: ") and "ending after this batch; Ctrl-C again leaves at once" in said
    expected = "autolora: interrupted after batch 1 of epoch 2; continue with: autolora "
    assert line == f"{expected}fit --config run/config.yaml --resume"
    assert command(line.partition("with: autolora ")[2].split(), tmp_path)[0] == 0
    assert_same(tmp_path / "run", whole)


def test_sigterm_before_training_ends_tidily(photos: Path, tmp_path: Path) -> None:
    code, err = command(["fit", str(photos), *TINY.split()], tmp_path, Point("fsync", 1, signal.SIGTERM))
    assert code == 143
    assert one_line(err) == "autolora: interrupted before anything was written"
    assert not (tmp_path / "run").exists()


def test_a_second_ctrl_c_leaves_at_once(photos: Path, tmp_path: Path) -> None:
    """It comes while the first one is being saved."""
    points = Point("attack", 2, signal.SIGINT), Point("serialise", 1, signal.SIGINT, delay=0.5)
    code, err = command(["fit", str(photos), *TINY.split()], tmp_path, *points)
    assert code == 130
    assert err.splitlines()[-1] == "autolora: leaving at once"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_evaluation_that_is_ended_goes_on_where_it_was(whole: Path, tmp_path: Path) -> None:
    argv = ["evaluate", str(whole), "--attack", "pgd-2", "--batch-size", "4", "--device", "cpu", "--quiet"]
    assert command([*argv, "--out", "whole"], tmp_path)[0] == 0
    code, err = command([*argv, "--out", "part"], tmp_path, Point("attack", 3, signal.SIGTERM))
    assert code == 143 and "--resume --out part" in one_line(err)
    assert len(list((tmp_path / "part").rglob("0*.safetensors"))) == 2
    assert command([*argv, "--out", "part", "--resume"], tmp_path)[0] == 0
    assert (tmp_path / "part" / "verdicts.csv").read_bytes() == (tmp_path / "whole" / "verdicts.csv").read_bytes()


def test_a_flipped_bit_in_a_verdict_is_found_and_the_shard_judged_again(whole: Path, tmp_path: Path) -> None:
    argv = ["evaluate", str(whole), "--attack", "pgd-2", "--batch-size", "4", "--device", "cpu", "--quiet"]
    assert command([*argv, "--out", "whole"], tmp_path)[0] == 0
    assert command([*argv, "--out", "part"], tmp_path, Point("attack", 3, signal.SIGTERM))[0] == 143
    first = min((tmp_path / "part").rglob("0*.safetensors"))
    data = bytearray(first.read_bytes())
    data[-1] ^= 1  # of a verdict, or a pixel: what safetensors itself does not notice
    first.write_bytes(data)
    assert command([*argv, "--out", "part", "--resume"], tmp_path)[0] == 0
    for name in ("verdicts.csv", "evaluation.json"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_corruptions_that_were_interrupted_are_not_lost(whole: Path, tmp_path: Path) -> None:
    """What comes after the verdicts, when the evaluation has its file already."""
    argv = ["evaluate", str(whole), "--attack", "pgd-1", "--corruptions", "--device", "cpu", "--quiet", "--out", "e"]
    assert command(argv, tmp_path, Point("corrupt", 1, signal.SIGTERM))[0] == 143
    assert (tmp_path / "e" / "evaluation.json").is_file()
    assert command([*argv, "--resume"], tmp_path) == (0, "")
    assert len(json.loads((tmp_path / "e" / "evaluation.json").read_text())["corruptions"]["types"]) == 15
    code, err = command([*argv, "--resume"], tmp_path)
    assert code == 2 and "holds a finished evaluation" in one_line(err)


# two processes, one folder


@contextmanager
def stopped(argv: list[str], folder: Path, point: Point, written: Path) -> Iterator[BaseProcess]:
    """Start a command that stands still at a point, once it has written a file; end it."""
    process = start(argv, folder, point)
    try:
        wait_for(written.exists, [process])
        yield process
    finally:
        process.kill()
        process.join()


def test_two_evaluations_do_not_write_one_folder(whole: Path, tmp_path: Path) -> None:
    argv = ["evaluate", str(whole), "--attack", "pgd-2", "--device", "cpu", "--quiet", "--out", str(tmp_path / "e")]
    (tmp_path / "other").mkdir()
    with stopped(argv, tmp_path, Point("attack", 1, signal.SIGSTOP), (tmp_path / "e" / LOCK)) as first:
        code, err = command([*argv, "--resume"], tmp_path / "other")
    assert code == 1
    assert f"{tmp_path / 'e'} is in use by process {first.pid} on {socket.gethostname()}; wait" in one_line(err)
    assert command([*argv, "--resume"], tmp_path)[0] == 0


def test_a_folder_in_use_names_its_owner_and_a_dead_one_does_not_count(photos: Path, tmp_path: Path) -> None:
    argv = ["fit", str(photos), *TINY.split()]
    (tmp_path / "other").mkdir()
    where = f"{tmp_path / 'run'} is in use by process"
    with stopped(argv, tmp_path, Point("attack", 3, signal.SIGSTOP), tmp_path / "run" / "config.yaml") as first:
        for resume in ([], ["--resume"]):
            code, err = command([*argv, *resume, "--out", str(tmp_path / "run")], tmp_path / "other")
            assert code == 1
            assert f"{where} {first.pid} on {socket.gethostname()}; wait for it, or" in one_line(err)
    assert (tmp_path / "run" / LOCK).exists()  # it could not remove it
    assert command([*argv, "--resume"], tmp_path) == (0, "")
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_lock_is_of_one_run_in_a_process_too(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        mine = Owner(os.getpid(), socket.gethostname())
        assert owner(tmp_path / "run") == mine
        with pytest.raises(RunError, match=f"in use by {mine}"), locked(tmp_path / "run"):
            pass
        assert owner(tmp_path / "run") == mine  # asking does not give it away
    assert owner(tmp_path / "run") is None
    assert not (tmp_path / "run").exists()  # nothing was written there


def test_without_locks_the_process_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems that know none: the pid decides on this host, and on another one the file does."""

    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("autolora.experiments.run_lock.fcntl.lockf", unknown)
    dead = start(["--version"], tmp_path)
    dead.join()
    for named, taken in (
        (Owner(os.getppid(), socket.gethostname()), True),
        (Owner(dead.pid or 0, socket.gethostname()), False),
        (Owner(1, "elsewhere"), True),
    ):
        (tmp_path / LOCK).write_text(json.dumps(named._asdict()))
        assert owner(tmp_path) == (named if taken else None)
        if taken:
            with pytest.raises(RunError, match=f"in use by {named}"), locked(tmp_path):
                pass
    with pytest.raises(RunError, match=f"if that process has ended, delete {tmp_path / LOCK}"), locked(tmp_path):
        pass


# disks


class Full:
    """An operation that fails from its n-th call on, as on a disk that has filled up."""

    def __init__(self, action: Callable[..., Any], number: int, code: int) -> None:
        self.action, self.left, self.code = action, number, code

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left <= 0:
            raise OSError(self.code, os.strerror(self.code))
        return self.action(*arguments, **options)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("number", [1, 4, 9, 14])
def test_a_full_disk_ends_in_one_line_and_nothing_is_half_written(
    photos: Path,
    whole: Path,
    tmp_path: Path,
    number: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["fit", str(photos), *TINY.split(), "--checkpoint-minutes", str(EVERY_BATCH)]
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", Full(os.fsync, number, errno.ENOSPC))
        assert command_line(argv) == 1
    line = one_line(capsys.readouterr().err)
    assert line.startswith("autolora: no space left on the disk of run; nothing is half written; ")
    kept = files(tmp_path) - {"run/config.yaml", "run/split.json"}
    assert not any(".new" in path for path in kept)
    if "continue with: autolora " in line:
        assert kept
        assert command_line(line.partition("continue with: autolora ")[2].split()) == 0
    else:
        assert line.endswith("make room, and start again") and not kept
        assert command_line([*argv, "--resume"]) == 0
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "no space left on the disk of e; nothing is half written; what was judged is kept: make room"),
        (errno.EROFS, "e cannot be written (Read-only file system); what was judged is kept: allow that, or name"),
    ],
)
def test_an_evaluation_that_cannot_write_keeps_what_was_judged(
    whole: Path,
    tmp_path: Path,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["evaluate", str(whole), "--attack", "pgd-2", "--batch-size", "4", "--device", "cpu", "--quiet"]
    assert command_line([*argv, "--out", "whole"]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(shards, "save_file", Full(save_file, 3, code))
        assert command_line([*argv, "--out", "e"]) == 1
    line = one_line(capsys.readouterr().err)
    assert line.startswith(f"autolora: {said}") and "with --resume" in line
    assert len(list(Path("e").rglob("0*.safetensors"))) == 2 and not list(Path("e").rglob("*.new"))
    assert command_line([*argv, "--out", "e", "--resume"]) == 0
    assert Path("e/verdicts.csv").read_bytes() == Path("whole/verdicts.csv").read_bytes()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_ends_in_one_line(
    photos: Path, tmp_path: Path, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights do not stop root, so that the system's refusal is played."""

    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", refuse)
        assert command_line(["fit", str(photos), *TINY.split()]) == 1
    line = one_line(capsys.readouterr().err)
    assert line.startswith(f"autolora: run cannot be written ({os.strerror(code)}); ") and "another --out" in line
    assert not any(tmp_path.iterdir())


# images


def copied(photos: Path, folder: Path) -> Path:
    shutil.copytree(photos, folder)
    return folder


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_image_that_vanishes_is_named_and_the_run_goes_on_when_it_is_back(
    photos: Path, tmp_path: Path, workers: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos beyond the cache are decoded from file each time they are shown."""
    data = copied(photos, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pixels, "pixels_for", None)

    def uncached(sources: Any, size: int, **options: Any) -> pixels.PhotoPixels:
        return pixels.PhotoPixels(sources, size, 0)

    monkeypatch.setattr("autolora.data.splits.pixels_for", uncached)
    learnt = FT.loss
    lost = data / "train" / "red" / "03.png"

    def losing(method: FT, *arguments: Any) -> Any:
        lost.unlink(missing_ok=True)
        return learnt(method, *arguments)

    argv = f"fit photos {TINY} --method ft --workers {workers}".replace(" --rank 2", "").split()
    with monkeypatch.context() as patched:
        patched.setattr(FT, "loss", losing)
        assert command_line(argv) == 1
    line = one_line(capsys.readouterr().err)
    assert "photos/train/red/03.png can no longer be read (" in line and "No such file or directory" in line
    assert "the run is kept after" in line
    resume = line.partition("continue with: autolora ")[2].split()
    assert command_line(resume) == 2  # it is still missing: other images than at the start
    assert "--resume: the images of photos are not those that the run was started with" in capsys.readouterr().err
    shutil.copy(photos / "train" / "red" / "03.png", lost)
    assert command_line(resume) == 0


def test_other_images_are_not_the_same_run(config: Callable[..., RunConfig], photos: Path, tmp_path: Path) -> None:
    data = copied(photos, tmp_path / "photos")
    with pytest.raises(KeyboardInterrupt):
        interrupted(config(data=data))
    path = data / "train" / "blue" / "00.png"
    Image.open(path).rotate(90).save(path)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in files(tmp_path / "run")}
    with pytest.raises(InputError, match=r"are not those that the run was started with \(fingerprint \w{12} then, "):
        run(config(data=data), resume=True, progress=False)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in files(tmp_path / "run")} == before


def interrupted(config: RunConfig) -> None:
    """Run the first epoch, and press Ctrl-C."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("autolora.experiments.tracking.write_metrics", lambda *_: signal.raise_signal(signal.SIGINT))
        run(config, progress=False)


def of_a_pipe() -> None:
    """Break as what a worker hands over does, when the worker is gone."""
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    ours.recv()


def of_torch() -> None:
    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


@pytest.mark.parametrize(
    ("broken", "said"),
    [(of_a_pipe, "EOFError"), (of_torch, "DataLoader worker (pid 7) is killed by signal: Killed.")],
)
def test_a_worker_that_dies_is_told_in_one_line_wherever_it_is_noticed(
    tmp_path: Path, broken: Callable[[], None], said: str
) -> None:
    with pytest.raises(RunError) as caught, explained(tmp_path, lambda first: f"{first}, and go on"):
        broken()
    assert str(caught.value) == f"a process that loads images has died ({said}); see that there is memory, and go on"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), "{}: Connection reset by peer; mend that"),
        (EOFError("a file that is too short"), None),
    ],
    ids=repr,
)
def test_what_breaks_elsewhere_is_no_worker(tmp_path: Path, error: Exception, raised: str | None) -> None:
    with pytest.raises(type(error) if raised is None else RunError) as caught, explained(tmp_path, str):
        raise error
    assert str(caught.value) == (str(error) if raised is None else raised.format(tmp_path))


# numbers


def test_a_diverging_run_lists_the_images_of_its_batch(
    config: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"training diverged: .* in batch 2 of 2; lower --lr") as caught:
        run(config(lr=1e30, method="ft", rank=None), progress=False)
    listed = (tmp_path / "run" / "not-finite.txt").read_text().splitlines()
    assert len(listed) == 10 and all(Path(name).is_file() for name in listed)
    assert f"; it holds {listed[0]}, {listed[1]} and 8 more (all are listed in " in str(caught.value)


def test_lack_of_memory_elsewhere_is_told_in_one_line(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")

    monkeypatch.setattr(run_module, "assess", greedy)
    with pytest.raises(RunError, match="out of memory; the run is kept after the last finished epoch: make room") as e:
        run(config(), progress=False)
    assert "\n" not in str(e.value)


def test_another_machine_is_said_aloud(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(config())
    monkeypatch.setattr(torch, "__version__", "9.9")
    run(dataclasses.replace(config(), workers=1), resume=True, progress=False)
    (said,) = [record.message for record in caplog.records if record.message.startswith("--resume")]
    assert "now 9.9" in said and "the number of workers (0, now 1)" in said and "not exactly" in said


# determinism


def beside_commits(environment: dict[str, Any]) -> dict[str, Any]:
    """Leave out the state of the repository, which may change while tests run."""
    return {name: value for name, value in environment.items() if name != "commit"}


def test_a_result_is_enough_to_run_it_again(whole: Path, tmp_path: Path) -> None:
    """Configuration and environment from ``result.json`` alone; the fingerprint says that the images are the same."""
    content = RunResult.read(whole).content
    assert content["environment"]["threads"] == 1 and content["environment"]["torch"] == torch.__version__
    again = run(config_from({**content["config"], "out": str(tmp_path / "again")}), progress=False)
    assert_same(again.folder, whole)
    assert again.content["data"]["fingerprint"] == content["data"]["fingerprint"]
    assert beside_commits(again.content["environment"]) == beside_commits(content["environment"])


def test_a_plugin_is_in_the_result_and_another_one_does_not_continue_the_run(photos: Path, tmp_path: Path) -> None:
    first = "from autolora.methods import FT, register\n\n@register('own')\nclass Own(FT):\n    'FT itself.'\n"
    second = first + "# a change\n"
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (first, second)]
    (tmp_path / "own.py").write_text(first)
    argv = f"fit {photos} {TINY} --method own --plugin own.py".replace(" --rank 2", "").split()
    assert command(argv, tmp_path, Point("step", BATCHES + 1, signal.SIGTERM))[0] == 143
    (tmp_path / "own.py").write_text(second)
    code, err = command([*argv, "--resume"], tmp_path)
    assert code == 2
    line = one_line(err)
    assert "--resume: the plugin's file is not as it was when the run was started" in line
    assert f"SHA-256 {digests[0][:12]} then, {digests[1][:12]} now); put it back, or start a new run" in line
    (tmp_path / "own.py").write_text(first)
    assert command([*argv, "--resume"], tmp_path)[0] == 0
    assert RunResult.read(tmp_path / "run").content["environment"]["plugin_sha256"] == digests[0]


def test_sources_of_difference_are_in_the_result(whole: Path, config: Callable[..., RunConfig]) -> None:
    environment = RunResult.read(whole).content["environment"]
    assert environment["deterministic"] is True  # a CPU
    assert any("number of threads than 1" in source for source in environment["differences"])
    assert not any("workers" in source for source in environment["differences"])


def test_deterministic_asks_torch_for_it_while_the_run_lasts(
    config: Callable[..., RunConfig], whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    save = Checkpoints.save_last

    def asking(*arguments: Any) -> None:
        asked.append(torch.are_deterministic_algorithms_enabled())
        save(*arguments)

    monkeypatch.setattr(Checkpoints, "save_last", asking)
    result = run(config(deterministic=True), progress=False)
    assert asked == [True, True] and not torch.are_deterministic_algorithms_enabled()
    assert read_yaml(result.folder / "config.yaml").deterministic
    assert_same(result.folder, whole)
