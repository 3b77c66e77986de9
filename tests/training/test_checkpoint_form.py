"""A checkpoint whose checksums agree and whose content is wrong: the one before is taken, or one line says why not."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from test_resume import BATCHES, EVERY_BATCH, METHODS, Killed, assert_same, at_step, kill, plain, train, whole

from autolora.errors import InputError, RunError
from autolora.experiments.circumstances import RunCircumstances

AUTOLORA = METHODS["autolora"]
Change = Callable[[Any], Any]
RUN: dict[str, Any] = {"epochs": 2, "circumstances": RunCircumstances("photos", "f" * 64, {"torch": "2"})}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a run that was killed within its second epoch of two; the last two are within it."""
    folder = tmp_path_factory.mktemp("stopped")
    with torch.random.fork_rng(), pytest.raises(Killed):
        train(folder, AUTOLORA(at_step(BATCHES + 4, kill)), checkpoint_minutes=EVERY_BATCH, **RUN)
    return folder


def replaced(folder: Path, name: str, data: bytes) -> None:
    """Replace a file of a checkpoint, and its checksum in the manifest, as its author would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
    (folder / name).unlink(missing_ok=True)  # it may be a second name of another file
    (folder / name).write_bytes(data)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def plant(folder: Path, change: Change) -> None:
    """Change what ``state.pt`` holds."""
    path = folder / "state.pt"
    state = torch.load(path, weights_only=True)
    changed = change(state)
    torch.save(state if changed is None else changed, folder / "changed")
    data = (folder / "changed").read_bytes()
    (folder / "changed").unlink()
    replaced(folder, "state.pt", data)


def put(*path: Any, value: Any) -> Change:
    """Return what puts a value somewhere; ``...`` removes what is there."""

    def change(state: Any) -> None:
        for step in path[:-1]:
            state = state[step]
        if value is ...:
            del state[path[-1]]
        else:
            state[path[-1]] = value

    return change


def within(*path: Any, change: Change) -> Change:
    """Return what replaces something by what a function makes of it."""

    def all_of_it(state: Any) -> None:
        found = state
        for step in path[:-1]:
            found = found[step]
        found[path[-1]] = change(found[path[-1]])

    return all_of_it


OWN = ("processes", 0)
PLANTED = {
    "nothing": lambda state: {},
    "a list": lambda state: [1],
    "no optimizer": put("optimizer", value=...),
    "momentum of another shape": put("optimizer", "state", 0, "momentum_buffer", value=torch.ones(7)),
    "momentum that is a text": put("optimizer", "state", 0, "momentum_buffer", value="x"),
    "momentum of nobody": put("optimizer", "state", 10**6, value={"momentum_buffer": torch.ones(1)}),
    "a rate that is a text": put("schedule", "lr", value="0.1"),
    "scores that are texts": put("schedule", "scores", value=["a"]),
    "one more attribute in the place of code": put("method", "attack", value=3),
    "code of the class": put("method", "begin_epoch", value=3),
    "a loss weight that is a text": put("method", "lambda1", value="x"),
    "fewer rows than epochs": put("training", "epoch", value=7),
    "a row of nothing": put("training", "history", 0, value={}),
    "a best score of no epoch": put("training", "best", value=0.123),
    "an epoch below zero": put("training", "epoch", value=-1),
    "an epoch without end": put("training", "epoch", value=10**30),
    "no parts": put("parts", value=0),
    "no circumstances": put("circumstances", value=None),
    "a machine of no kind": put("circumstances", "machine", value=3),
    "no process": put("processes", value=[]),
    "generators cut short": within(*OWN, "random", "torch", change=lambda state: state[:100]),
    "a generator of zeros": within(*OWN, "random", "torch", change=torch.zeros_like),
    "numpy behind its words": within(*OWN, "random", "numpy", change=lambda state: (*state[:2], 10**6, *state[3:])),
    "sums that are texts": put(*OWN, "partial", "totals", "adversarial", value="x"),
    "more batches than were drawn": put(*OWN, "partial", "batches", value=99),
    "an order of nothing": put(*OWN, "draws", "order", value=None),
    "no place in the order": put(*OWN, "draws", value=...),
    "buffers that nobody has": put(*OWN, "buffers", value={"x": torch.ones(1)}),
    "compiled is a list": put("compiled", value=["attack"]),
    "compiled by a text": put("compiled", value={"attack": "yes"}),
    "compiled is nothing": put("compiled", value=None),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_no_run_writes_is_passed_over(
    kind: str, stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of it has been put back: the run ends as the uninterrupted one."""
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    plant(folder / "last", PLANTED[kind])
    with torch.random.fork_rng():
        again = train(folder, AUTOLORA(plain), seed=9, resume=True, **RUN)
        assert_same(again, whole(epochs=2))
    warnings = [record.message for record in caplog.records]
    start = f"damaged checkpoint: {folder / 'last'} is not what a run writes: "
    assert [line.startswith(start) and "previous, which is whole" in line for line in warnings] == [True]


@pytest.mark.parametrize("name", ["model.safetensors", "best.safetensors"])
@pytest.mark.parametrize("kind", ["garbage", "a tensor less", "another shape"])
def test_weights_that_are_not_the_models_are_passed_over(
    name: str, kind: str, stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    tensors = load((folder / "last" / name).read_bytes())
    first = next(iter(tensors))
    changed = {**tensors, first: torch.ones(3, 1)} if kind == "another shape" else tensors
    if kind == "a tensor less":
        del changed[first]
    replaced(folder / "last", name, b"{}" if kind == "garbage" else save(changed))
    with torch.random.fork_rng():
        again = train(folder, AUTOLORA(plain), seed=9, resume=True, **RUN)
        assert_same(again, whole(epochs=2))
    assert f"is not what a run writes: {name}" in caplog.text.replace("'", "")


@pytest.mark.parametrize("name", ["../../elsewhere", "/dev/zero", "pipe"])
def test_a_manifest_names_files_of_its_own_folder(
    name: str, stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No file elsewhere is read, and no device, which has no end."""
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    manifest = json.loads((folder / "last" / "manifest.json").read_text())
    manifest["sha256"][name] = "0"
    (folder / "last" / "manifest.json").write_text(json.dumps(manifest))
    (folder / "last" / "pipe").symlink_to("/dev/zero")
    with torch.random.fork_rng():
        train(folder, AUTOLORA(plain), seed=9, resume=True, **RUN)
    assert f"{folder / 'last'} cannot be read (ValueError)" in caplog.text


def test_without_another_it_is_one_line(stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    for generation in ("last", "previous"):
        plant(folder / generation, put("schedule", value={"lr": 0.1}))
    with torch.random.fork_rng(), pytest.raises(RunError, match="no whole checkpoint is left") as caught:
        train(folder, AUTOLORA(plain), resume=True, **RUN)
    assert str(caught.value).count("'schedule' is not lr, scores, halved_last by name") == 2
    assert "\n" not in str(caught.value)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all that a state holds; tuples are taken as they are."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(place for key, part in parts for place in places(part, (*path, key)))]


ODD: st.SearchStrategy[Any] = st.sampled_from([
    ..., None, True, -1, 0, 2**70, 0.5, 1e308, float("nan"), "x", "", [], [[]], {}, {"x": 1}, (), (1, "a"),
    torch.ones(2, 3), torch.zeros(0), torch.tensor(0.5), torch.arange(5056, dtype=torch.uint8),
])  # fmt: skip


@settings(
    max_examples=12,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_nothing_in_a_state_ends_in_a_traceback(
    data: st.DataObject, stopped: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Anything in the place of anything: the run is continued, from this checkpoint or the one before, or says why not.

    What has the right form may be wrong all the same, a loss weight of 1e308 for one; then training says so.
    """
    folder = tmp_path_factory.mktemp("planted") / "run"
    shutil.copytree(stopped, folder)
    state = torch.load(folder / "last" / "state.pt", weights_only=True)
    place = data.draw(st.sampled_from(places(state)))
    plant(folder / "last", put(*place, value=deepcopy(data.draw(ODD))))
    with torch.random.fork_rng():
        try:
            train(folder, AUTOLORA(plain), seed=9, resume=True, **RUN)
        except (RunError, InputError) as error:
            assert "\n" not in str(error)
