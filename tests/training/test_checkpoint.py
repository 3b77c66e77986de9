"""Checkpoints: whatever is interrupted, and where, the old or the new one is there to be loaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autolora.training import Checkpoints, TrainingState
from autolora.training.checkpoint import STATE, WEIGHTS


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def net(value: float) -> nn.Sequential:
    """A model with a buffer, all of whose tensors are one value."""
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    for tensor in model.state_dict().values():
        tensor.fill_(value)
    return model


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def values(model: nn.Module) -> set[float]:
    return {float(value) for tensor in model.state_dict().values() for value in tensor.flatten()}


def save(checkpoints: Checkpoints, kind: str, epoch: int) -> None:
    model = net(epoch)
    if kind == "best":
        checkpoints.save_best(model)
    else:
        checkpoints.save_last(model, sgd(model), {"epoch": epoch}, TrainingState(epoch))


def load(checkpoints: Checkpoints, kind: str) -> int:
    """Load what is there and return its epoch, which all parts of it must agree about."""
    model = net(-1)
    if kind == "best":
        checkpoints.restore_best(model)
        (epoch,) = values(model)
    else:
        assert checkpoints.has_last()
        schedule, state = checkpoints.restore_last(model, sgd(model))
        epoch = state.epoch
        assert schedule == {"epoch": epoch} and values(model) == {epoch}
    return int(epoch)


def test_the_last_state_comes_back_whole(tmp_path: Path) -> None:
    model = net(1)
    optimizer = sgd(model)
    torch.autograd.backward(model(torch.rand(4, 2, 3, 3)).square().sum())
    optimizer.step()
    state = TrainingState(epoch=3, best=0.25, history=[{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": 0.05}], seconds=1.5)
    schedule: dict[str, Any] = {"lr": 0.05, "scores": [0.1, 0.25], "halved_last": True}
    Checkpoints(tmp_path / "new" / "folder").save_last(model, optimizer, schedule, state)
    drawn = torch.rand(3)

    other = net(0)
    fresh = sgd(other)
    checkpoints = Checkpoints(tmp_path / "new" / "folder")
    assert checkpoints.restore_last(other, fresh) == (schedule, state)
    assert torch.equal(torch.rand(3), drawn)  # the random generator goes on where it was
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        momentum = optimizer.state[theirs]["momentum_buffer"]
        assert momentum is not None and torch.equal(fresh.state[ours]["momentum_buffer"], momentum)


def test_loading_runs_no_code(tmp_path: Path) -> None:
    """A checkpoint may come from someone else: nothing in it is unpickled but tensors and plain values."""
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, "last", 1)
    torch.save({"optimizer": Path("code")}, tmp_path / "last" / STATE)
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        load(checkpoints, "last")


def test_the_best_weights_fit_strictly(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(net(1))
    with pytest.raises(RuntimeError, match="Missing key"):
        checkpoints.restore_best(nn.Sequential(*net(0), nn.Linear(2, 2)))


def test_the_best_weights_have_the_models_own_layout_in_memory(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    model, other = (nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last) for _ in range(2))
    checkpoints.save_best(model)
    checkpoints.restore_best(other)
    assert torch.equal(other.weight, model.weight)
    assert other.weight.is_contiguous(memory_format=torch.channels_last)


def test_nothing_saved_is_nothing_to_continue(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert not checkpoints.has_last() and not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("kind", ["best", "last"])
def test_a_new_one_takes_the_place_of_the_old_and_leaves_nothing_beside(tmp_path: Path, kind: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        save(checkpoints, kind, epoch)
        assert load(checkpoints, kind) == epoch
    assert [path.name for path in tmp_path.iterdir()] == [kind]
    assert {path.name for path in (tmp_path / kind).iterdir()} == ({WEIGHTS} if kind == "best" else {WEIGHTS, STATE})


def test_a_kill_between_the_two_renames_leaves_the_old_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for kind in ("best", "last"):
        save(checkpoints, kind, 1)
        (tmp_path / kind).rename(tmp_path / f".{kind}.old")
        assert load(checkpoints, kind) == 1
        save(checkpoints, kind, 2)
        assert load(checkpoints, kind) == 2


@pytest.mark.parametrize("kind", ["best", "last"])
def test_an_exception_while_writing_leaves_the_old_one(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, kind, 1)

    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("autolora.training.checkpoint.save_file", full)
        with pytest.raises(OSError, match="No space left"):
            save(checkpoints, kind, 2)
    assert load(checkpoints, kind) == 1
    assert [path.name for path in tmp_path.iterdir()] == [kind]


class Killed(BaseException):
    """What a signal would be: no handler of exceptions gets to tidy up."""


class Countdown:
    """Let a number of operations of the file system through; be killed before the next."""

    def __init__(self, patch: pytest.MonkeyPatch, survive: int) -> None:
        self.left = survive
        for owner, name in ((Path, "rename"), (Path, "mkdir"), (shutil, "rmtree"), (os, "fsync")):
            patch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, action: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return action(*arguments, **options)

        return operation


@pytest.mark.parametrize("kind", ["best", "last"])
def test_a_kill_at_any_two_moments_leaves_the_old_or_the_new_one(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is killed while it saves, continues, and is killed again while it saves the same epoch."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no disk loses power here
    moments = range(8)
    finished = 0
    for first in moments:
        for second in moments:
            checkpoints = Checkpoints(tmp_path / f"{first}-{second}")
            save(checkpoints, kind, 1)
            for survive in (first, second):
                before = load(checkpoints, kind)
                with monkeypatch.context() as patch:
                    Countdown(patch, survive)
                    try:
                        save(checkpoints, kind, before + 1)
                        finished += 1
                    except Killed:
                        pass
                assert load(checkpoints, kind) in (before, before + 1), (first, second)
    assert 0 < finished < 2 * len(moments) ** 2  # some were never killed: the moments cover a whole save
