"""A run that is set up as ``fit`` sets it up, in order to be tried: the same model, loaders, update and epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from autolora.experiments.assessment import evaluation_attack
from autolora.experiments.batches import clean_batches, training_batches, validation_batches
from autolora.experiments.ingredients import Ingredients
from autolora.training import Checkpoints, Optimization
from autolora.training.assembly import Loaders, assemble
from autolora.training.epoch import Epoch
from autolora.training.forms import Forms
from autolora.training.precision import autocast_for
from autolora.training.replicas import accelerator_for
from autolora.training.snapshot import Anywhere, Snapshots


@dataclass(frozen=True)
class Stage:
    """A run before its first epoch.

    Args:
        parts: What it consists of; the model has its branches.
        epoch: What an epoch works with.
        optimizer: The optimizer itself.
        forms: What of a step runs compiled.
    """

    parts: Ingredients
    epoch: Epoch
    optimizer: torch.optim.Optimizer
    forms: Forms

    @property
    def device(self) -> torch.device:
        """Return where it computes."""
        return self.parts.device

    @property
    def batch(self) -> int:
        """Return the images of a training step."""
        size = self.parts.config.batch_size
        assert isinstance(size, int)
        return min(size, len(self.parts.splits.train))

    def snapshots(self, checkpoints: Checkpoints) -> Snapshots:
        """Return what keeps checkpoints."""
        epoch, schedule = self.epoch, self.parts.schedule
        return Snapshots(
            epoch.model, epoch.method, schedule, self.optimizer, epoch, epoch.accelerator, checkpoints, Anywhere()
        )


def set_up(parts: Ingredients) -> Stage:
    """Prepare a run; its model and its method are used up by trying it, and nothing is written.

    Args:
        parts: What the run consists of, its batch size resolved.
    """
    model, method, config, device = parts.model, parts.method, parts.config, parts.device
    assert config.epochs is not None
    if device.type == "cpu" or parts.precision != "fp32":
        model.to(memory_format=torch.channels_last)
    method.prepare(model)
    splits, seen = parts.splits.on(device), model.architecture.network_size[-1]
    assembly = assemble(
        model,
        method,
        Loaders(
            training_batches(splits.train, config, device),
            validation_batches(splits.val, seen, config, device),
            clean_batches(splits.train, config),
        ),
        parts.schedule.lr,
        accelerator_for(device, parts.precision),
        val_attack=evaluation_attack(parts.threat),
        optimization=Optimization(config.momentum, config.weight_decay, config.reset_momentum),
        autocast=autocast_for(parts.precision, device),
        accumulate=config.accumulate,
        compile=config.compile,
    )
    assembly.forms.begin(config.epochs * len(assembly.epoch.train), config.accumulate)
    return Stage(parts, assembly.epoch, assembly.optimizer, assembly.forms)
