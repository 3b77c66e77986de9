"""A run that is set up as ``fit`` sets it up, in order to be tried: the same model, loaders, update and epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from autolora.experiments.assessment import evaluation_attack
from autolora.experiments.batches import clean_batches, training_batches, validation_batches
from autolora.experiments.ingredients import Ingredients
from autolora.models.folding import Folding
from autolora.training import Checkpoints, Optimization, Step
from autolora.training.draws import Draws
from autolora.training.epoch import Epoch
from autolora.training.forms import Forms, forms_for
from autolora.training.interruption import Interruption
from autolora.training.precision import autocast_for
from autolora.training.replicas import accelerator_for
from autolora.training.sharding import Shards
from autolora.training.snapshot import Anywhere, Snapshots
from autolora.training.update import Update


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
    epochs, batch = config.epochs, config.batch_size
    assert epochs is not None and isinstance(batch, int)
    if device.type == "cpu" or parts.precision != "fp32":
        model.to(memory_format=torch.channels_last)
    accelerator, autocast = accelerator_for(device, parts.precision), autocast_for(parts.precision, device)
    splits, seen = parts.splits.on(device), model.architecture.network_size[-1]
    method.prepare(model)
    model.to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimization = Optimization(config.momentum, config.weight_decay, config.reset_momentum)
    optimizer = optimization.optimizer(trained, parts.schedule.lr)
    step, prepared = accelerator.prepare(Step(model, method), optimizer)
    train = Draws(training_batches(splits.train, config, device), accelerator)
    forms = forms_for(model, config.compile, device, batch)
    forms.begin(epochs * len(train), config.accumulate)
    folding = Folding(model.backbone, in_place=forms.captured is not None)
    epoch = Epoch(
        model,
        method,
        Update(model, method, step, prepared, accelerator, autocast, folding, Shards(model), config.accumulate, forms),
        train,
        Draws(validation_batches(splits.val, seen, config, device), accelerator, once=True),
        Draws(clean_batches(splits.train, config), accelerator, once=True),
        evaluation_attack(parts.threat),
        accelerator,
        autocast,
        Interruption(alone=True),
    )
    return Stage(parts, epoch, optimizer, forms)
