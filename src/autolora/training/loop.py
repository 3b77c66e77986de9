"""The loop: attack, loss, step, validation. It knows no method, and it never sees a test image."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from autolora.attacks import PGD
from autolora.methods import Method
from autolora.models import RobustModel
from autolora.models.folding import Folding
from autolora.schedules import Schedule
from autolora.training.checkpoint import Checkpoints, TrainingState
from autolora.training.epoch import Autocast, Epoch, Loader, Row
from autolora.training.step import Step

Probe = Callable[[int], Row]  # a finished epoch's number to what was measured after it, if anything


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


def fit(
    model: RobustModel,
    method: Method,
    train: Loader,
    val: Loader,
    schedule: Schedule,
    accelerator: Accelerator,
    *,
    epochs: int,
    val_attack: PGD,
    checkpoints: Checkpoints,
    optimization: Optimization | None = None,
    clean: Loader | None = None,
    probe: Probe | None = None,
    autocast: Autocast = nullcontext,
    resume: bool = False,
    progress: bool = True,
    on_epoch: Callable[[TrainingState], None] = lambda state: None,
) -> TrainingState:
    """Train, select the epoch on validation images, and leave that epoch's model, without branches.

    The test split is not an argument: nothing here can select on it.

    Args:
        model: What is trained, in place.
        method: Attack and loss.
        train: Training images, shuffled and augmented.
        val: Validation images, not augmented.
        schedule: Learning rate; may ask to go back to the best weights.
        accelerator: Devices and processes.
        epochs: Passes over the training images, at most; the schedule may stop earlier.
        val_attack: Attack for the robust validation accuracy.
        checkpoints: Where to keep the last and the best state.
        optimization: Momentum and weight decay.
        clean: The training images, not augmented and in a fixed order, for methods that measure on them.
        probe: Called after every epoch with its number; what it measures joins the epoch's row.
        autocast: Precision of attacks and losses; verdicts are taken in full precision.
        resume: Continue after the last finished epoch in ``checkpoints``.
        progress: Show a progress bar.
        on_epoch: Called after every epoch, with its row at the end of the history.

    Raises:
        TrainingError: If a loss is not finite.
    """
    method.prepare(model)
    model.to(accelerator.device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimization = optimization or Optimization()
    optimizer = optimization.optimizer(trained, schedule.lr)
    state = TrainingState()
    if resume and checkpoints.has_last():
        schedule_state, state = checkpoints.restore_last(model, optimizer)
        schedule.load_state_dict(schedule_state)
    step, prepared, train, val = accelerator.prepare(Step(model, method), optimizer, train, val)
    clean = clean and accelerator.prepare(clean)
    folding = Folding(model.backbone)
    epoch = Epoch(model, method, step, prepared, train, val, clean, val_attack, accelerator, autocast, folding)
    total, done = epochs * len(train), state.epoch * len(train)
    with tqdm(total=total, initial=done, unit="batch", disable=not progress, dynamic_ncols=True) as bar:
        while state.epoch < epochs and not schedule.stopped:
            started = time.perf_counter()
            bar.set_description(f"epoch {state.epoch + 1}/{epochs}")
            row = {"epoch": state.epoch + 1, "lr": schedule.lr} | epoch.run(schedule.lr, bar)
            if probe is not None:
                row |= probe(state.epoch + 1)
            score = row["val_robust" if method.selects_on == "robust" else "val_natural"]
            if score > state.best:
                state.best = score
                _on_main(accelerator, lambda: checkpoints.save_best(model))
            if schedule.observe(score):
                checkpoints.restore_best(model)  # weights and buffers; the momentum stays, as in the release
                if optimization.reset_momentum:
                    optimizer.state.clear()
            _finish_epoch(state, row, time.perf_counter() - started)
            _on_main(accelerator, lambda: checkpoints.save_last(model, optimizer, schedule.state_dict(), state))
            _on_main(accelerator, lambda: on_epoch(state))
    checkpoints.restore_best(model)
    method.finalize(model)
    return state


def _finish_epoch(state: TrainingState, row: Row, seconds: float) -> None:
    state.epoch += 1
    state.seconds += seconds
    images_per_second = row.pop("images") / seconds
    state.history.append(row | {"seconds": seconds, "images_per_second": images_per_second})


def _on_main(accelerator: Accelerator, action: Callable[[], None]) -> None:
    """Write in one process, and let the others wait until it is there."""
    if accelerator.is_main_process:
        action()
    accelerator.wait_for_everyone()
