"""Everything that the rest of a run depends on, at one moment: taken for a checkpoint, and put back from one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from autolora.errors import InputError
from autolora.methods import Method
from autolora.models import RobustModel
from autolora.schedules import Schedule
from autolora.training.checkpoint import Checkpoints, TrainingState
from autolora.training.epoch import Epoch, Partial
from autolora.training.method_state import load_method_state, method_state
from autolora.training.random_state import random_state, restore_random_state


class Circumstances(Protocol):
    """Under which a run was started, and is to be continued: data, machine, versions."""

    def facts(self) -> dict[str, Any]:
        """Return them as plain values."""

    def compare(self, before: Mapping[str, Any]) -> None:
        """Look at those of a checkpoint: say what will differ, or raise ``InputError`` if it is another run."""


class Anywhere:
    """No circumstances: a run that may be continued under any."""

    def facts(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def compare(self, before: Mapping[str, Any]) -> None:
        """Accept all."""


@dataclass
class Snapshots:
    """Takes the state of a run, and puts it back; between two batches, or between two epochs.

    Args:
        model: What is trained.
        method: Attack and loss, with what it has found out; prepared, and otherwise new.
        schedule: Learning rate.
        optimizer: The optimizer itself.
        epoch: The epoch under way, with the generators of its images.
        accelerator: Devices and processes.
        checkpoints: Where snapshots are kept.
        circumstances: Kept with them.
    """

    model: RobustModel
    method: Method
    schedule: Schedule
    optimizer: torch.optim.Optimizer
    epoch: Epoch
    accelerator: Accelerator
    checkpoints: Checkpoints
    circumstances: Circumstances

    def __post_init__(self) -> None:
        self._method_at_first = method_state(self.method)

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint: every process brings what is its own, and one writes.

        Raises:
            TrainingError: If a weight is not finite: such a state is not kept.
            OSError: If it cannot be written.
        """
        self.epoch.check_weights()
        processes = gather_object([self._own()])
        if self.accelerator.is_main_process:
            content = {
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "method": method_state(self.method, self._method_at_first),
                "training": vars(state),
                "parts": self.epoch.update.parts,
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {},
                "circumstances": self.circumstances.facts(),
                "processes": processes,
            }
            partial = self.epoch.partial
            facts = {"epoch": state.epoch, "batches": 0 if partial is None else partial.batches}
            self.checkpoints.save_last(self.model, content, facts)
        self.accelerator.wait_for_everyone()

    def restore(self) -> TrainingState | None:
        """Put everything back as it was at the newest whole checkpoint; None if there is none.

        Raises:
            InputError: If the checkpoint is of another run, or of another number of processes.
            RunError: If no checkpoint is whole.
        """
        saved = self.checkpoints.load_last()
        if saved is None:
            return None
        content = saved.state
        self.circumstances.compare(content["circumstances"])
        self._check_processes(len(content["processes"]))
        if self.accelerator.is_main_process:  # the one that writes them
            self.checkpoints.go_on_from(saved)
        own = content["processes"][self.accelerator.process_index]
        if own["partial"] is not None:
            self.method.begin_training(self.model)  # the modes; whatever else it does was done before, and is put back
        self.model.load_state_dict(saved.weights)
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        load_method_state(self.method, content["method"])
        if content["scaler"] and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(content["scaler"])
        self.epoch.update.parts = content["parts"]
        self._restore_own(own)
        return TrainingState(**content["training"])

    def _own(self) -> dict[str, Any]:
        """Return what each process has of its own: random generators, and sums over its images."""
        partial, buffers = self.epoch.partial, {}
        if self.accelerator.num_processes > 1:  # batch norm's statistics differ between two forward passes
            lasting = self.model.state_dict().keys()
            buffers = {name: buffer.cpu() for name, buffer in self.model.named_buffers() if name in lasting}
        own = {"random": random_state(), "buffers": buffers, "shuffling": self.epoch.train.shuffling, "partial": None}
        if partial is None:
            return own
        kept = {item.name: getattr(partial, item.name) for item in fields(Partial) if item.name != "started"}
        kept |= {"totals": {name: term.cpu() for name, term in partial.totals.items()}, "seconds": partial.elapsed()}
        draws = self.epoch.train.position()
        return own | {"random": partial.random or own["random"], "partial": kept, "draws": draws}

    def _restore_own(self, own: dict[str, Any]) -> None:
        if own["partial"] is not None:
            device = self.accelerator.device
            totals = {name: term.to(device) for name, term in own["partial"]["totals"].items()}
            self.epoch.partial = Partial(**{**own["partial"], "totals": totals})
            self.epoch.train.resume(own["draws"])
        self.epoch.train.shuffling = own["shuffling"]
        self.model.load_state_dict(self.model.state_dict() | own["buffers"])
        restore_random_state(own["random"])

    def _check_processes(self, before: int) -> None:
        now = self.accelerator.num_processes
        if before != now:
            raise InputError(
                f"--resume: the run was started with {before} processes, not {now}: batches would be divided "
                "otherwise; launch it as before, or start a new run with another --out"
            )
