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
from autolora.training.checkpoint import BEST, WEIGHTS, Checkpoints, Saved, TrainingState, tensors_of
from autolora.training.checkpoint_form import (
    WRONG,
    check_compiled,
    check_draws,
    check_generator,
    check_like,
    check_method,
    check_momentum,
    check_partial,
    check_random,
    check_standing,
    names,
    require,
)
from autolora.training.checkpoint_store import Damaged
from autolora.training.epoch import Epoch, Partial
from autolora.training.method_state import load_method_state, method_state
from autolora.training.random_state import random_state, restore_random_state
from autolora.training.sharding import divided, whole

PARTS = ("optimizer", "schedule", "method", "training", "parts", "scaler", "circumstances", "processes")
OWN = {"random", "buffers", "shuffling", "partial"}  # of each process; and "draws" with a partial epoch


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
        weights, optimizer = self.epoch.update.shards.weights(), whole(self.optimizer.state_dict())
        if self.accelerator.is_main_process:
            content = {
                "optimizer": optimizer,
                "schedule": self.schedule.state_dict(),
                "method": method_state(self.method, self._method_at_first),
                "training": vars(state),
                "parts": self.epoch.update.parts,
                "compiled": {} if (forms := self.epoch.update.forms) is None else forms.chosen(),
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {},
                "circumstances": self.circumstances.facts(),
                "processes": processes,
            }
            partial = self.epoch.partial
            facts = {"epoch": state.epoch, "batches": 0 if partial is None else partial.batches}
            self.checkpoints.save_last(weights, content, facts)
        self.accelerator.wait_for_everyone()

    def restore(self) -> TrainingState | None:
        """Put everything back as it was at the newest whole checkpoint; None if there is none.

        Raises:
            InputError: If the checkpoint is of another run, or of another number of processes.
            RunError: If no checkpoint is whole.
        """
        saved = self.checkpoints.load_last(self._check)
        if saved is None:
            return None
        content = saved.state
        if self.accelerator.is_main_process:  # the one that writes them
            self.checkpoints.go_on_from(saved)
        own = content["processes"][self.accelerator.process_index]
        if own["partial"] is not None:
            self.method.begin_training(self.model)  # the modes; whatever else it does was done before, and is put back
        self.epoch.update.shards.load(saved.weights)
        # the groups are options, which are given again
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": self._momentum(content)})
        self.schedule.load_state_dict(content["schedule"])
        load_method_state(self.method, content["method"])
        if content["scaler"] and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(content["scaler"])
        self.epoch.update.parts = content["parts"]
        if self.epoch.update.forms is not None:
            self.epoch.update.forms.choose(content.get("compiled", {}))  # absent in checkpoints of before it was kept
        self._restore_own(own)
        return TrainingState(**content["training"])

    def _check(self, saved: Saved) -> None:
        """Look at all of a checkpoint before any of it is put back, in every process at all that any of them reads.

        Raises:
            InputError: If it is of another run, or of another number of processes.
            Damaged: If it is not what this run would write.
        """
        content = saved.state
        require(isinstance(content, dict) and content.keys() >= set(PARTS), "state", f"{', '.join(PARTS)} by name")
        try:
            self.circumstances.compare(content["circumstances"])
        except InputError:
            raise
        except WRONG as error:
            raise Damaged(f"is not what a run writes: its circumstances cannot be compared ({error})") from error
        require(isinstance(content["processes"], list) and bool(content["processes"]), "processes", "a list")
        self._check_processes(len(content["processes"]))
        self._check_common(saved)
        for number, own in enumerate(content["processes"]):
            self._check_own(own, f"processes.{number}")

    def _check_common(self, saved: Saved) -> None:
        """Look at what all processes share."""
        content, trained = saved.state, self.optimizer.param_groups[0]["params"]
        check_like(saved.weights, dict(self.model.state_dict()), WEIGHTS)
        names(content["optimizer"], ("state", "param_groups"), "optimizer")
        check_momentum(content["optimizer"]["state"], trained, "optimizer")
        now = self.schedule.state_dict().items()
        check_like(content["schedule"], {k: float(v) if type(v) is int else v for k, v in now}, "schedule")
        check_method(content["method"], self.method, "method")
        check_standing(content["training"], f"val_{self.method.selects_on}", "training")
        check_like(content["parts"], 1, "parts")
        require(content["parts"] > 0, "parts", "1 or more")
        check_compiled(content.get("compiled", {}), "compiled")
        if content["scaler"] and self.accelerator.scaler is not None:
            check_like(content["scaler"], self.accelerator.scaler.state_dict(), "scaler")
        if saved.best is not None:
            check_like(tensors_of(saved.best, BEST), dict(self.model.state_dict()), BEST)
        require(saved.best is not None or not content["training"]["epoch"], BEST, "there")

    def _check_own(self, own: Any, name: str) -> None:
        """Look at what a process has of its own."""
        require(isinstance(own, dict) and own.keys() - {"draws"} == OWN, name, f"{', '.join(sorted(OWN))} by name")
        check_random(own["random"], f"{name}.random")
        buffers = dict(self.model.state_dict()) if self.accelerator.num_processes > 1 else {}
        require(isinstance(own["buffers"], dict) and own["buffers"].keys() <= buffers.keys(), name, "with its buffers")
        check_like(own["buffers"], {key: buffers[key] for key in own["buffers"]}, f"{name}.buffers")
        if self.epoch.train.shuffling is None:
            check_like(own["shuffling"], None, f"{name}.shuffling")
        else:
            check_generator(own["shuffling"], f"{name}.shuffling")
        if own["partial"] is not None:
            now = self.epoch.train.position() | {"generator": self.epoch.train.shuffling}
            check_draws(own.get("draws"), now, f"{name}.draws")
            check_partial(own["partial"], own["draws"]["batches"], f"{name}.partial")

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

    def _momentum(self, content: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
        """Return what the optimizer keeps of each trained tensor, as this process holds the tensor."""
        trained = self.optimizer.param_groups[0]["params"]
        state = content["optimizer"]["state"].items()
        return {i: {name: divided(value, trained[i]) for name, value in kept.items()} for i, kept in state}

    def _check_processes(self, before: int) -> None:
        now = self.accelerator.num_processes
        if before != now:
            raise InputError(
                f"--resume: the run was started with {before} processes, not {now}: batches would be divided "
                "otherwise; launch it as before, or start a new run with another --out"
            )
