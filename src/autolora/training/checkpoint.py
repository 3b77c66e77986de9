"""Checkpoints: everything needed to continue, replaced as a whole so that a kill leaves the old or the new one."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS, STATE = "model.safetensors", "state.pt"


@dataclass
class TrainingState:
    """Where a training run stands after an epoch.

    Args:
        epoch: Epochs that are finished.
        best: Best selection score so far, a share of the validation images; below zero before the first.
        history: One row per finished epoch, as in ``metrics.jsonl``.
        seconds: Training time so far, over all sessions of the run.
    """

    epoch: int = 0
    best: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class Checkpoints:
    """The folder ``checkpoints/`` of a run: ``last/`` to continue from, ``best/`` to go back to and to ship.

    Args:
        folder: Where they lie; made when something is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save_best(self, model: nn.Module) -> None:
        """Keep these weights and buffers as the best so far."""
        with _replaced(self.folder / "best") as new:
            save_file(_tensors(model), new / WEIGHTS)

    def restore_best(self, model: nn.Module) -> None:
        """Load the best weights and buffers into the model, strictly."""
        model.load_state_dict(load_file(_current(self.folder / "best") / WEIGHTS))

    def save_last(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: dict[str, Any], state: TrainingState
    ) -> None:
        """Keep everything that the next epoch depends on."""
        content = {
            "optimizer": optimizer.state_dict(),
            "schedule": schedule,
            "training": vars(state),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        with _replaced(self.folder / "last") as new:
            save_file(_tensors(model), new / WEIGHTS)
            torch.save(content, new / STATE)

    def has_last(self) -> bool:
        """Say whether there is anything to continue from."""
        return (_current(self.folder / "last") / STATE).is_file()

    def restore_last(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], TrainingState]:
        """Load model, optimizer and random generators; return the schedule's state and where the run stands."""
        last = _current(self.folder / "last")
        content = torch.load(last / STATE, map_location="cpu", weights_only=True)
        model.load_state_dict(load_file(last / WEIGHTS))
        optimizer.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["rng"])
        if content["rng_cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(content["rng_cuda"])
        return content["schedule"], TrainingState(**content["training"])


class _replaced:
    """A new folder that takes the place of an old one when it is complete, and vanishes when it is not."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.new = target.with_name(f".{target.name}.new")
        self.old = target.with_name(f".{target.name}.old")

    def __enter__(self) -> Path:
        shutil.rmtree(self.new, ignore_errors=True)
        self.new.mkdir(parents=True)
        return self.new

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self.new, ignore_errors=True)
            return
        for path in self.new.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if self.target.exists():  # if not, a kill has come between the renames, and the old folder is all there is
            shutil.rmtree(self.old, ignore_errors=True)
            self.target.rename(self.old)
        self.new.rename(self.target)
        shutil.rmtree(self.old, ignore_errors=True)


def _current(target: Path) -> Path:
    """Return the folder, or the one it was about to replace if a kill came between the two renames."""
    old = target.with_name(f".{target.name}.old")
    return old if not target.exists() and old.exists() else target


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
