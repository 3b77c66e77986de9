"""The loop: attack, loss, step, validation. It knows no method, and it never sees a test image."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from autolora.attacks import PGD, Forward
from autolora.evaluation import Score, verdicts
from autolora.methods import Batch, Method
from autolora.models import RobustModel, evaluating
from autolora.models.folding import Folding
from autolora.schedules import Schedule
from autolora.training.checkpoint import Checkpoints, TrainingState
from autolora.training.step import Step

Autocast = Callable[[], AbstractContextManager[object]]
Loader = DataLoader[tuple[Tensor, Tensor]]
Row = dict[str, float]


class TrainingError(RuntimeError):
    """Training cannot go on, through nobody's mistake in the command: a loss that is not finite."""


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
    epoch = _Epoch(
        model, method, step, prepared, train, val, val_attack, accelerator, autocast, Folding(model.backbone)
    )
    total, done = epochs * len(train), state.epoch * len(train)
    with tqdm(total=total, initial=done, unit="batch", disable=not progress, dynamic_ncols=True) as bar:
        while state.epoch < epochs and not schedule.stopped:
            started = time.perf_counter()
            bar.set_description(f"epoch {state.epoch + 1}/{epochs}")
            row = {"epoch": state.epoch + 1, "lr": schedule.lr} | epoch.run(schedule.lr, bar)
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


@dataclass
class _Epoch:
    """One pass over the training images and one over the validation images, with all that they need."""

    model: RobustModel
    method: Method
    step: Step
    optimizer: Any  # accelerate's wrapper of the optimizer
    train: Loader
    val: Loader
    val_attack: PGD
    accelerator: Accelerator
    autocast: Autocast
    folding: Folding

    def run(self, lr: float, bar: tqdm[NoReturn]) -> Row:
        """Train for an epoch at a rate; return loss terms, gauges and validation accuracies."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with evaluating(self.model), self.autocast():  # loss weights, unlike verdicts, may be set in low precision
            self.method.begin_epoch(self.model, lambda way: self._score(way, self.train).accuracy)
        losses = self._train(bar)
        with evaluating(self.model):
            natural = self._score(self.model, self.val)
            robust = self._score(self.model, self.val, self.val_attack)
        scores = {"val_natural": natural.accuracy, "val_robust": robust.accuracy}
        return self.method.gauges() | losses | scores

    def _train(self, bar: tqdm[NoReturn]) -> Row:
        self.method.begin_training(self.model)
        totals: dict[str, Tensor] = {}
        images = 0
        for x, y in self.train:
            x_adv = self._attack(x, y)
            with self.autocast():
                losses = self.step(Batch(x, y, x_adv))
            self._update(torch.stack(list(losses.values())).sum())
            for name, term in losses.items():
                totals[name] = totals.get(name, torch.zeros_like(term)) + term.detach()
            images += len(y) * self.accelerator.num_processes
            bar.update()
        means = {name: float(self.accelerator.reduce(term, "mean")) / len(self.train) for name, term in totals.items()}
        # a finite loss may still have had a gradient that was not: then the weights tell
        finite = all(bool(parameter.isfinite().all()) for parameter in self.model.parameters())
        if not finite or not all(map(math.isfinite, means.values())):
            raise TrainingError(
                f"training diverged: losses {means}, weights {'finite' if finite else 'not finite'}; "
                "lower --lr, or train with --precision fp32"
            )
        return means | {"images": images}

    def _attack(self, x: Tensor, y: Tensor) -> Tensor:
        with evaluating(self.model), self.autocast(), self.model.running(self.folding.network(self.model.backbone)):
            return self.method.attack(self.model, x, y)

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.optimizer.step()

    def _score(self, way: Forward, batches: Loader, attack: PGD | None = None) -> Score:
        gather = self.accelerator.gather_for_metrics
        return verdicts(way, batches, attack, autocast=self.autocast, gather=gather).score


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
