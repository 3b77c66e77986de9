"""Checkpoints that other people write: containers, prefixes, damage, malice, and what does not fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.weights import load_strictly, read_state

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1.0, -1.0])}


def same(state: Mapping[str, Tensor], expected: Mapping[str, Tensor] = TENSORS) -> bool:
    return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in expected)


def saved(folder: Path, content: Any, name: str = "weights.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def test_safetensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert same(read_state(tmp_path / "model.safetensors"))
    assert same(read_state(str(tmp_path / "model.safetensors")))


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_file(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "weights.th"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=not legacy)
    assert same(read_state(path))


@pytest.mark.parametrize("container", ["state_dict", "model", "model_state_dict", "state_dict_ema"])
def test_containers_are_opened(tmp_path: Path, container: str) -> None:
    """A training script keeps its epoch, its best score and its optimizer beside the weights."""
    content = {"epoch": 3, "best_prec1": 91.7, "optimizer": {"state": {0: torch.ones(2)}}, container: TENSORS}
    assert same(read_state(saved(tmp_path, content)))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, prefix: str) -> None:
    assert same(read_state(saved(tmp_path, {prefix + name: tensor for name, tensor in TENSORS.items()})))


def test_prefix_of_some_names_only_stays(tmp_path: Path) -> None:
    """A model may have a layer called ``module``."""
    content = {"module.weight": torch.ones(2), "head.weight": torch.ones(2)}
    assert same(read_state(saved(tmp_path, content)), content)


def test_wrapped_by_data_parallel_itself(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    path = saved(tmp_path, {"state_dict": nn.DataParallel(net).state_dict()})
    assert same(read_state(path), net.state_dict())


class Malice:
    """What an attacker pickles: reading it calls a function."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("place", ["alone", "beside", "legacy"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, place: str) -> None:
    marker = tmp_path / "ran"
    content = Malice(marker) if place == "alone" else {"state_dict": TENSORS, "extra": Malice(marker)}
    path = tmp_path / "evil.pth"
    torch.save(content, path, _use_new_zipfile_serialization=place != "legacy")
    with pytest.raises(InputError, match="refused, since loading it could run code") as caught:
        read_state(path)
    message = str(caught.value)
    assert f"{os.system.__module__}.system" in message
    assert str(path) in message
    assert "state dict" in message
    assert "\n" not in message
    assert not marker.exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"could run code \(global torch\.nn\.modules\.linear\.Linear"):
        read_state(saved(tmp_path, nn.Linear(2, 2)))


@pytest.mark.parametrize("name", ["weights.pth", "model.safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.2, 0.9])
def test_truncated_files(tmp_path: Path, name: str, keep: float) -> None:
    path = tmp_path / name
    save_file(TENSORS, path) if name.endswith("safetensors") else torch.save(TENSORS, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InputError, match=f"{name}: not a readable") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"hello, I am a text", b"\x89PNG\r\n\x1a\n" + bytes(100), b"<html></html>"])
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.pth: (not a readable|refused)") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.pth: no such file; give"):
        read_state(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"state_dict": {"a": 1}}, 5])
def test_no_tensors(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InputError, match="no tensors in it"):
        read_state(saved(tmp_path, content))


def test_strict_load_lists_everything_that_does_not_fit() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = {name: torch.ones_like(tensor) for name, tensor in before.items()}
    del state["1.bias"], state["1.running_mean"]
    state |= {"0.weight": torch.ones(5, 3), "2.weight": torch.ones(1)}
    with pytest.raises(InputError) as caught:
        load_strictly(net, state, "mine.pth")
    message = str(caught.value)
    assert "mine.pth do not fit the model Sequential" in message
    assert "missing: 1.bias, 1.running_mean;" in message
    assert "unexpected: 2.weight;" in message
    assert "of another shape: 0.weight (5, 3) instead of (2, 3)." in message
    assert "--model" in message
    assert same(net.state_dict(), before)


def test_long_lists_are_shortened() -> None:
    with pytest.raises(InputError, match=r"0\.weight.*3\.bias and 12 more"):
        load_strictly(nn.Sequential(*(nn.Linear(1, 1) for _ in range(10))), {}, "empty.pth")


def test_strict_load_takes_over_every_tensor() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = {name: torch.full_like(tensor, 7) for name, tensor in net.state_dict().items()}
    load_strictly(net, state, "mine.pth")
    assert same(net.state_dict(), state)


def test_old_checkpoints_do_not_count_batches() -> None:
    """Torch before 0.4.1 had no ``num_batches_tracked``."""
    net = nn.BatchNorm1d(2)
    load_strictly(net, {name: torch.ones(2) for name in ("weight", "bias", "running_mean", "running_var")}, "old.pth")
    assert net.running_mean is not None
    assert net.running_mean.tolist() == [1, 1]
