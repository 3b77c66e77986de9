"""A run before its first epoch: a model with its branches, the update of a batch, the optimizer and the images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from autolora.attacks import PGD
from autolora.methods import Method
from autolora.models import RobustModel
from autolora.models.folding import Folding
from autolora.training.draws import Draws
from autolora.training.epoch import Epoch, Loader
from autolora.training.forms import Compile, Forms, forms_for
from autolora.training.interruption import Interruption
from autolora.training.precision import Autocast
from autolora.training.sharding import held
from autolora.training.step import Step
from autolora.training.update import Update


@dataclass(frozen=True)
class Optimization:
    """Stochastic gradient descent as in the papers; the schedule gives the learning rate.

    Args:
        momentum: Momentum in [0, 1).
        weight_decay: Applied to every trained tensor: the papers make no parameter groups.
        reset_momentum: Forget the momentum when the schedule goes back to the best weights; the release keeps it.
    """

    momentum: float = 0.9
    weight_decay: float = 1e-4
    reset_momentum: bool = False

    def optimizer(self, trained: list[nn.Parameter], lr: float) -> torch.optim.SGD:
        """Make the optimizer of these tensors."""
        return torch.optim.SGD(trained, lr, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Loaders:
    """The images of a run; none of them are test images.

    Args:
        train: Training images, shuffled and augmented.
        val: Validation images, not augmented.
        clean: The training images, not augmented and in a fixed order, for methods that measure on them.
    """

    train: Loader
    val: Loader
    clean: Loader | None = None


@dataclass(frozen=True)
class Assembly:
    """A run that can begin.

    Args:
        epoch: What an epoch works with.
        optimizer: The optimizer itself.
        forms: What of a step runs compiled; not begun yet.
    """

    epoch: Epoch
    optimizer: torch.optim.Optimizer
    forms: Forms


def assemble(
    learner: RobustModel,
    method: Method,
    loaders: Loaders,
    lr: float,
    accelerator: Accelerator,
    *,
    val_attack: PGD,
    optimization: Optimization,
    autocast: Autocast = nullcontext,
    names: Sequence[str] = (),
    accumulate: int = 1,
    compile: Compile = "off",
    shard: bool = False,
) -> Assembly:
    """Put together what trains a model, on the accelerator's device.

    Args:
        learner: The model, with its branches (``Method.prepare``); changed in place.
        method: Attack and loss.
        loaders: The images.
        lr: First learning rate.
        accelerator: Devices and processes.
        val_attack: As :func:`autolora.training.fit` takes it, and so the others.
        optimization: Momentum and weight decay.
        autocast: Precision of attacks and losses.
        names: What the training images are called.
        accumulate: Parts in which a batch is taken.
        compile: What runs compiled.
        shard: Whether each of several processes keeps its part alone.

    Raises:
        InputError: If the model cannot be divided among processes, and is to be.
    """
    processes, device = accelerator.num_processes, accelerator.device
    learner.to(device)
    forms = forms_for(learner, compile, device, (loaders.train.batch_size or 0) // processes, processes=processes)
    folding = Folding(learner.backbone, in_place=forms.captured is not None, apart=shard)
    step, shards = held(Step(learner, method), accelerator, shard)
    # after the processes hold it: a part of a tensor is another parameter than the whole
    optimizer = optimization.optimizer([weight for weight in learner.parameters() if weight.requires_grad], lr)
    prepared = accelerator.prepare(optimizer)
    epoch = Epoch(
        learner,
        method,
        Update(learner, method, step, prepared, accelerator, autocast, folding, shards, accumulate, forms),
        Draws(loaders.train, accelerator),
        Draws(loaders.val, accelerator, once=True),
        None if loaders.clean is None else Draws(loaders.clean, accelerator, once=True),
        val_attack,
        accelerator,
        autocast,
        Interruption(alone=processes == 1),
        names,
    )
    return Assembly(epoch, optimizer, forms)
