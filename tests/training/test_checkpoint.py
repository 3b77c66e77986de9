"""Checkpoints: whatever is interrupted, damaged or full, and where, a whole one is there to be loaded."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from autolora.errors import RunError
from autolora.training import Checkpoints
from autolora.training.checkpoint import BEST, STATE, WEIGHTS
from autolora.training.checkpoint_store import MANIFEST
from autolora.training.random_state import random_state, restore_random_state
from autolora.training.sharding import Shards

FILES = {WEIGHTS, STATE, MANIFEST}


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


def values(model: nn.Module) -> set[float]:
    return {float(value) for tensor in model.state_dict().values() for value in tensor.flatten()}


def save(checkpoints: Checkpoints, kind: str, epoch: int) -> None:
    if kind == "best":
        checkpoints.save_best(net(epoch).state_dict())
    else:
        checkpoints.save_last(net(epoch).state_dict(), {"epoch": epoch, "numbers": torch.arange(epoch)})


def load(folder: Path, kind: str) -> int:
    """Load what is there, as another process would, and return its epoch, about which all parts must agree."""
    model = net(-1)
    if kind == "best":
        model.load_state_dict(Checkpoints(folder).load_best())
        (epoch,) = values(model)
    else:
        saved = Checkpoints(folder).load_last()
        assert saved is not None
        model.load_state_dict(saved.weights)
        (epoch,) = values(model)
        assert saved.state["epoch"] == epoch and torch.equal(saved.state["numbers"], torch.arange(int(epoch)))
    return int(epoch)


def flip(path: Path, bit: int) -> None:
    """Damage a file, and no other name of it."""
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.unlink()
    path.write_bytes(data)


def test_a_state_comes_back_whole(tmp_path: Path) -> None:
    model, other = net(1), net(0)
    state: dict[str, Any] = {
        "schedule": {"lr": 0.05, "scores": [0.1, 0.25], "halved_last": True},
        "random": random_state(),
        "history": [{"epoch": 1, "lr": 0.1}],
        "nothing": None,
    }
    drawn = torch.rand(3), random.random()
    Checkpoints(tmp_path / "new" / "folder").save_last(model.state_dict(), state, {"epoch": 1})

    saved = Checkpoints(tmp_path / "new" / "folder").load_last()
    assert saved is not None
    other.load_state_dict(saved.weights)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert {name: saved.state[name] for name in ("schedule", "history", "nothing")} == {
        name: state[name] for name in ("schedule", "history", "nothing")
    }
    restore_random_state(saved.state["random"])
    assert torch.equal(torch.rand(3), drawn[0]) and random.random() == drawn[1]
    assert json.loads((tmp_path / "new" / "folder" / "last" / MANIFEST).read_text())["epoch"] == 1


def test_loading_runs_no_code(tmp_path: Path) -> None:
    """A checkpoint may come from someone else: nothing in it is unpickled but tensors and plain values."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last(net(1).state_dict(), {"path": Path("code")})  # an object of a class; its checksum is right
    with pytest.raises(RunError, match="more than tensors and plain values") as caught:
        checkpoints.load_last()
    assert "\n" not in str(caught.value)


def test_the_best_weights_fit_strictly(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(net(1).state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        Shards(nn.Sequential(*net(0), nn.Linear(2, 2))).load(checkpoints.load_best())


def test_the_best_weights_have_the_models_own_layout_in_memory(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    model, other = (nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last) for _ in range(2))
    checkpoints.save_best(model.state_dict())
    Shards(other).load(checkpoints.load_best())
    assert torch.equal(other.weight, model.weight)
    assert other.weight.is_contiguous(memory_format=torch.channels_last)


def test_nothing_saved_is_nothing_to_continue(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.load_last() is None
    assert not (tmp_path / "checkpoints").exists()


def test_the_last_two_are_kept_and_nothing_beside(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        save(checkpoints, "best", epoch)
        save(checkpoints, "last", epoch)
        assert load(tmp_path, "last") == load(tmp_path, "best") == epoch
    assert {path.name for path in tmp_path.iterdir()} == {"last", "previous", "best"}
    assert {path.name for path in (tmp_path / "last").iterdir()} == FILES | {BEST}
    assert {path.name for path in (tmp_path / "best").iterdir()} == {WEIGHTS}
    shutil.rmtree(tmp_path / "last")
    assert load(tmp_path, "last") == 2
    checkpoints.drop_previous()
    assert checkpoints.load_last() is None


def test_a_checkpoint_goes_back_to_the_best_weights_of_its_time(tmp_path: Path) -> None:
    """Better ones came, and then the checkpoint after it was damaged."""
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, "best", 1)
    save(checkpoints, "last", 1)
    save(checkpoints, "best", 2)
    save(checkpoints, "last", 2)
    save(checkpoints, "best", 3)
    for expected in (2, 1):
        again, model = Checkpoints(tmp_path), net(0)
        saved = again.load_last()
        assert saved is not None
        again.go_on_from(saved)
        model.load_state_dict(again.load_best())
        assert values(model) == {expected}
        flip(tmp_path / "last" / BEST, 999)


@pytest.mark.parametrize("links", [True, False])
def test_the_best_weights_take_space_once_where_they_can(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, "best", 1)
    save(checkpoints, "last", 1)
    assert os.path.samefile(tmp_path / "best" / WEIGHTS, tmp_path / "last" / BEST) == links
    assert {float(t.flatten()[0]) for t in load_file(tmp_path / "last" / BEST).values()} == {1.0}


# damage


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([WEIGHTS, STATE, BEST, MANIFEST]), st.integers(0, 2**40), st.booleans())
def test_damage_anywhere_is_found_and_the_one_before_is_taken(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture, name: str, bit: int, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    checkpoints = Checkpoints(folder)
    for epoch in (1, 2):
        save(checkpoints, "best", epoch)
        save(checkpoints, "last", epoch)
    path = folder / "last" / name
    if cut:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data[: bit % len(data)])
    else:
        flip(path, bit)
    caplog.clear()
    found = load(folder, "last")
    if name == MANIFEST and found == 2:
        return  # the bit was in white space, or in what it says for people
    assert found == 1
    (record,) = caplog.records
    assert record.message.startswith(f"damaged checkpoint: {folder / 'last'} ")
    assert record.message.endswith(f"going on from {folder / 'previous'}, which is whole")


def test_with_both_damaged_it_ends_in_one_line(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, "last", 1)
    save(checkpoints, "last", 2)
    flip(tmp_path / "last" / WEIGHTS, 12345)
    (tmp_path / "previous" / STATE).unlink()
    with pytest.raises(RunError, match="no whole checkpoint is left") as caught:
        checkpoints.load_last()
    text = str(caught.value)
    assert f"{tmp_path / 'last'} is damaged: model.safetensors is not what was written" in text
    assert f"{tmp_path / 'previous'} lacks state.pt; start a new run" in text and "\n" not in text


def test_best_weights_that_were_damaged_meanwhile_are_not_shipped(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, "best", 1)
    flip(tmp_path / "best" / WEIGHTS, 2000)
    with pytest.raises(RunError, match=r"model\.safetensors is damaged"):
        checkpoints.load_best()


def test_what_a_disk_does_not_keep_is_found_when_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that gives back other bytes than it got: the checkpoint before is not given up for it."""
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, "best", 1)
    save(checkpoints, "last", 1)
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path)[:-1] + b"?" if ".new" in str(path) else read(path))
    for kind in ("last", "best"):
        with pytest.raises(OSError, match="cannot be read back"):
            save(checkpoints, kind, 2)
    monkeypatch.undo()
    assert load(tmp_path, "last") == load(tmp_path, "best") == 1
    assert {path.name for path in tmp_path.rglob("*")} == {"last", "best", *FILES, BEST}


# interruption


@pytest.mark.parametrize("kind", ["best", "last"])
def test_a_full_disk_leaves_the_old_one(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, kind, 1)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save(checkpoints, kind, 2)
    assert load(tmp_path, kind) == 1
    assert [path.name for path in tmp_path.iterdir()] == [kind]
    assert len(list((tmp_path / kind).iterdir())) == (1 if kind == "best" else 3)


class Killed(BaseException):
    """What a signal would be: no handler of exceptions gets to tidy up."""


class Countdown:
    """Let a number of operations of the file system through; be killed before the next."""

    def __init__(self, patch: pytest.MonkeyPatch, survive: int) -> None:
        self.left = survive
        operations = [(Path, "rename"), (Path, "replace"), (Path, "mkdir"), (Path, "unlink")]
        for owner, name in (*operations, (shutil, "rmtree"), (os, "fsync"), (os, "link")):
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
    moments = range(5 if kind == "best" else 13)
    finished = 0
    for first in moments:
        for second in moments:
            folder = tmp_path / f"{first}-{second}"
            checkpoints = Checkpoints(folder)
            save(checkpoints, "best", 1)
            save(checkpoints, kind, 1)
            for survive in (first, second):
                before = load(folder, kind)
                checkpoints = Checkpoints(folder)
                if (saved := checkpoints.load_last()) is not None:
                    checkpoints.go_on_from(saved)
                with monkeypatch.context() as patch:
                    Countdown(patch, survive)
                    try:
                        save(checkpoints, kind, before + 1)
                        finished += 1
                    except Killed:
                        pass
                assert load(folder, kind) in (before, before + 1), (first, second)
    assert 0 < finished < 2 * len(moments) ** 2  # some were never killed: the moments cover a whole save
