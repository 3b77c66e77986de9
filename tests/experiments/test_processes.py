"""Several real processes share an evaluation: the same verdicts, and none is left waiting when another ends."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from subprocess import run as run_program

import pytest
import torch
from safetensors.torch import load_file, save_file
from several_processes import launched, outcome, run_both, wait_for

from autolora import finetune
from autolora.attacks.autoattack.ensemble import STANDING
from autolora.cli import run
from autolora.errors import InputError
from autolora.evaluation.shards import Shard, Shards
from autolora.experiments.evaluation import _check_same
from autolora.experiments.processes import Processes, joined
from autolora.experiments.progress import Progress

ONE_THREAD = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # sums are added up in an order that threads change
SHARDS = 9  # of two images each


@pytest.fixture(scope="module")
def subject(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    finetune(
        photos,
        method="ft",
        model="resnet20_cifar",
        weights="none",
        image_size=12,
        batch_size=10,
        epochs=6,
        lr=0.05,
        out=str(folder),
        progress=False,
    )
    return folder


@pytest.fixture(scope="module")
def whole(subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process finds."""
    out = tmp_path_factory.mktemp("whole") / "e"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run(command(subject, out)) == 0
    finally:
        torch.set_num_threads(threads)
    assert 0 < json.loads((out / "evaluation.json").read_text())["scores"]["pgd-40"]["correct"] < 18
    return out


def command(subject: Path, out: Path, *more: str) -> list[str]:
    attack = ["--attack", "pgd-40", "--eps", "8/255", "--batch-size", "2"]
    return ["evaluate", str(subject), *attack, "--device", "cpu", "--out", str(out), *more]


def judged(out: Path) -> set[int]:
    return {int(path.stem) for path in out.glob("shards/*/*.safetensors")}


def same(first: Path, second: Path) -> bool:
    names = ("evaluation.json", "verdicts.csv")
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


@pytest.mark.slow
def test_torchrun_gives_what_one_process_gives_and_prints_it_once(subject: Path, whole: Path, tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "autolora"]
    argv = [sys.executable, "-m", *launcher, *command(subject, tmp_path / "e")]
    done = run_program(argv, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    assert done.returncode == 0, done.stderr
    assert same(tmp_path / "e", whole) and judged(tmp_path / "e") == set(range(SHARDS))
    assert done.stdout.count("natural (SA)") == 1 and done.stdout.count("verdicts.csv") == 1
    assert done.stderr.count(f"evaluating {subject} on") == 1


@pytest.mark.slow
def test_after_a_kill_one_process_or_two_go_on(subject: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "e"
    with launched(tmp_path, *[command(subject, out)] * 2) as processes:
        wait_for(lambda: len(judged(out)) >= 2, processes)
        for process in processes:
            process.kill()
            process.join()
    assert judged(out) < set(range(SHARDS)) and not (out / "evaluation.json").exists()
    shutil.copytree(out, tmp_path / "again")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run(command(subject, out, "--resume", "--quiet")) == 0
    finally:
        torch.set_num_threads(threads)
    assert same(out, whole)

    said = run_both(tmp_path, *[command(subject, tmp_path / "again", "--resume")] * 2)
    assert [code for code, *_ in said] == [0, 0], said
    assert same(tmp_path / "again", whole)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_other_when_it_has_done_its_own_share(subject: Path, tmp_path: Path) -> None:
    out = tmp_path / "e"
    with launched(tmp_path, *[command(subject, out)] * 2) as processes:
        wait_for(lambda: judged(out) & {1, 3, 5}, processes)
        processes[1].kill()
        code, _, err = outcome(tmp_path, 0, processes[0])
    assert code == 1 and err.splitlines()[-1].startswith("autolora: another of the processes has ended")
    assert "Traceback" not in err
    assert set(range(0, SHARDS, 2)) <= judged(out) < set(range(SHARDS))  # the even ones are the first process's


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["of one", "of both together"])
def test_a_mistake_that_shows_in_one_process_ends_both_with_one_line(
    mistake: str, subject: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e"
    second, line = {
        "of one": (command(subject, out, "--data", "nowhere"), "nowhere does not exist"),
        "of both together": (command(altered(subject, tmp_path), out), "differ in the model"),
    }[mistake]
    (code, printed, said), (other, *silence) = run_both(tmp_path, command(subject, out), second)
    assert (code, other, printed, silence) == (2, 2, "", ["", ""])
    assert line in said.splitlines()[-1] and said.count("autolora: ") == 1
    assert not out.exists()


def altered(subject: Path, where: Path) -> Path:
    """The same model but for one weight."""
    copy = Path(shutil.copytree(subject, where / "altered"))
    weights = load_file(copy / "model" / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, copy / "model" / "model.safetensors", metadata={"format": "pt"})
    return copy


@pytest.mark.slow
@pytest.mark.parametrize(("number", "expected"), [(SIGINT, 130), (SIGTERM, 143)])
def test_a_signal_ends_the_one_at_work_and_the_one_that_waits(
    number: Signals, expected: int, subject: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e"
    endless = ["--attack", "pgd-1000000", "--batch-size", "18"]  # one shard, for the first process
    with launched(tmp_path, *[command(subject, out, *endless)] * 2) as processes:
        wait_for(lambda: list(out.glob("shards/*/manifest.json")), processes)
        time.sleep(1)
        for _ in range(2):  # from the terminal, and once more from the launcher
            for process in processes:
                with suppress(ProcessLookupError):  # the second signal may come when the first has done its work
                    os.kill(process.pid or 0, number)
            time.sleep(0.05)
        (code, _, said), (other, _, silence) = [outcome(tmp_path, rank, p) for rank, p in enumerate(processes)]
    assert (code, other, silence) == (expected, expected, "")
    assert "Traceback" not in said and said.splitlines()[-1].startswith(
        "autolora: interrupted; what was judged is kept"
    )


def test_one_process_of_several_is_silent_about_a_command_line_that_all_got(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert run(["evaluate", "packaged", "--nonsense", "1"]) == 2
        said.append(capsys.readouterr().err)
    assert "--nonsense is unknown" in said[0] and said[1] == ""


def test_processes_with_different_models_or_images_are_told_apart() -> None:
    _check_same([{"model": "a", "data": "b"}] * 3)
    with pytest.raises(InputError, match="differ in the data"):
        _check_same([{"model": "a", "data": "b"}, {"model": "a", "data": "b"}, {"model": "a", "data": "c"}])


def test_alone_nothing_is_waited_for() -> None:
    with joined() as processes:
        assert processes == Processes(rank=0, count=1) and processes.first
        processes.meet()
        assert processes.tell("a") == ["a"] and processes.agree(lambda: 1) == processes.in_turn(lambda: 1) == 1


def test_a_launcher_that_starts_one_process_instead_of_several_is_told_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # what accelerate launch --cpu --num_processes 2 leaves in the environment
    for name, value in {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    with joined() as processes:
        assert processes.count == 1
    assert "torchrun --nproc-per-node" in caplog.text


def test_progress_counts_what_others_have_done_meanwhile(tmp_path: Path) -> None:
    shards = Shards(tmp_path, total=8, size=2)
    shards.open({})

    def judge(number: int, by: int) -> Shard:
        shard = Shard(torch.zeros(2), torch.zeros(2), torch.tensor([by, by]), torch.zeros(0))
        shards.write(number, shard)
        return shard

    judge(0, STANDING)  # before this process began
    with Progress("pgd-1", shards, shown=True) as progress:
        assert progress.bar.n == 2
        judge(1, 1)  # by another process
        progress.shard(judge(2, STANDING))
        assert progress.bar.n == 6 and progress.bar.initial == 2
        assert "at most 75.0%, so far 66.7%" in str(progress.bar)
