"""``fit`` in two processes: one run folder, Ctrl-C and a kill that end both, a run that goes on as if nothing was."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from several_processes import launched, outcome, run_both, wait_for

from autolora.cli import main
from autolora.errors import InputError, RunError
from autolora.experiments.processes import Lost, Processes, connection_lost
from autolora.experiments.run_lock import locked
from autolora.models.bundle import load_bundle


def command(photos: Path, out: Path, *more: str) -> list[str]:
    model = ["--model", "resnet20_cifar", "--weights", "none", "--image-size", "12", "--precision", "fp32"]
    length = ["--epochs", "3", "--batch-size", "12", "--attack", "pgd-1", "--checkpoint-minutes", "0"]
    return ["fit", str(photos), *model, *length, "--device", "cpu", "--out", str(out), *more]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing has disturbed, and all that was said about it."""
    folder = tmp_path_factory.mktemp("whole")
    (code, printed, said), silent = run_both(folder, *[command(photos, folder / "run")] * 2)
    assert (code, silent) == (0, (0, "", "")), said + silent[2]
    assert printed.count("natural (SA)") == 1 and "Traceback" not in said
    return folder / "run"


def test_one_folder_with_one_result(whole: Path) -> None:
    result = json.loads((whole / "result.json").read_text())
    assert result["environment"]["processes"] == 2 and result["epochs_run"] == 3
    assert len((whole / "metrics.jsonl").read_text().splitlines()) == 3
    assert not (whole / ".lock").exists()


def test_ctrl_c_saves_and_the_rest_is_as_if_it_had_not_been(photos: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with launched(tmp_path, *[command(photos, out)] * 2) as processes:
        wait_for((out / "metrics.jsonl").is_file, processes)
        for process in processes:
            os.kill(process.pid or 0, signal.SIGINT)
        (code, _, said), (other, _, heard) = [outcome(tmp_path, rank, p) for rank, p in enumerate(processes)]
    assert (code, other) == (130, 130) and "Traceback" not in said + heard
    assert said.splitlines()[-1].startswith("autolora: interrupted after")
    assert "torchrun --nproc-per-node 2 -m autolora fit --config" in said and not (out / "result.json").exists()
    again = run_both(tmp_path, *[command(photos, out, "--resume")] * 2)
    assert [code for code, *_ in again] == [0, 0], again
    torch.testing.assert_close(weights(out), weights(whole), rtol=0, atol=0)


def test_a_process_that_is_killed_ends_the_other_with_a_line_and_the_run_goes_on(
    photos: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with launched(tmp_path, *[command(photos, out)] * 2) as processes:
        wait_for((out / "metrics.jsonl").is_file, processes)
        processes[1].kill()
        code, _, said = outcome(tmp_path, 0, processes[0])
    assert code == 1 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("autolora: another of the processes has ended; the run is kept after")
    assert not (out / "result.json").exists() and not list(out.glob("**/*.new"))
    again = run_both(tmp_path, *[command(photos, out, "--resume")] * 2)
    assert [code for code, *_ in again] == [0, 0], again
    torch.testing.assert_close(weights(out), weights(whole), rtol=0, atol=0)


def test_a_batch_that_cannot_be_shared_ends_both_with_one_line(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (code, _, said), silent = run_both(tmp_path, *[command(photos, out, "--batch-size", "11")] * 2)
    assert (code, silent) == (2, (2, "", "")) and not out.exists()
    assert "batch-size=11 is that of all 2 processes" in said.splitlines()[-1] and said.count("autolora: ") == 1


def test_a_folder_in_use_ends_both_with_one_line(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with locked(out):
        (code, _, said), silent = run_both(tmp_path, *[command(photos, out)] * 2)
    assert (code, silent) == (1, (1, "", ""))
    assert "in use by process" in said.splitlines()[-1] and said.count("autolora: ") == 1


def test_a_lost_connection_is_told_from_other_errors() -> None:
    assert connection_lost(Lost("gone")) and connection_lost(torch.distributed.DistBackendError("NCCL"))
    assert connection_lost(RuntimeError("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer"))
    assert not connection_lost(RuntimeError("shapes differ")) and not connection_lost(RunError("about gloo"))


def test_alone_a_fault_is_the_fault_itself() -> None:
    def fail(error: Exception) -> None:
        raise error

    for error in (RunError("full"), InputError("no")):
        with pytest.raises(type(error), match=str(error)) as raised:
            Processes().agree(lambda error=error: fail(error))  # type: ignore[misc]
        assert raised.value is error


def transformer(photos: Path, out: Path, *more: str) -> list[str]:
    model = ["--model", "deit_tiny_patch16_224", "--weights", "none", "--image-size", "16", "--precision", "fp32"]
    length = ["--epochs", "1", "--batch-size", "12", "--attack", "pgd-1", "--method", "autolora", "--device", "cpu"]
    return ["fit", str(photos), *model, *length, "--out", str(out), *more]


def test_processes_hold_a_transformer_in_parts_and_ship_a_whole_one(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (code, printed, said), silent = run_both(tmp_path, *[transformer(photos, out, "--shard")] * 2)
    assert (code, silent) == (0, (0, "", "")) and "natural (SA)" in printed, said + silent[2]
    (row,) = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    model = load_bundle(out / "model")
    assert sum(p.numel() for p in model.parameters()) > 5e6 and all(p.isfinite().all() for p in model.parameters())
    assert row["lambda2"] > 0 and 0 <= row["val_robust"] <= row["val_natural"] <= 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "resnet20_cifar has batch norm"),
        (["--compile", "attack"], "shard and compile=attack"),
        (["--gradient-similarity", "1"], "shard and gradient-similarity"),
    ],
)
def test_what_cannot_be_held_in_parts_ends_both_with_one_line(
    more: list[str], words: str, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    (code, _, said), silent = run_both(tmp_path, *[command(photos, out, "--shard", *more)] * 2)
    assert (code, silent) == (2, (2, "", "")) and not out.exists()
    assert words in said.splitlines()[-1] and said.count("autolora: ") == 1


def test_one_process_has_nobody_to_share_a_model_with(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(command(photos, tmp_path / "run", "--shard"))
    assert "launch several, as in `torchrun" in capsys.readouterr().err and not (tmp_path / "run").exists()
