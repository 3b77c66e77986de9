"""One epoch: attack, loss, step over the training images; natural and robust accuracy on the validation images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from autolora.attacks import PGD, Forward
from autolora.evaluation import Batches, Score, verdicts
from autolora.methods import Batch, Method
from autolora.models import RobustModel, evaluating
from autolora.models.folding import Folding
from autolora.training.step import Step

Autocast = Callable[[], AbstractContextManager[object]]
Loader = DataLoader[tuple[Tensor, Tensor]]
Row = dict[str, float]


class TrainingError(RuntimeError):
    """Training cannot go on, through nobody's mistake in the command: a loss that is not finite."""


@dataclass
class Epoch:
    """One pass over the training images and one over the validation images, with all that they need.

    Args:
        model: What is trained.
        method: Attack and loss.
        step: The loss as a module.
        optimizer: accelerate's wrapper of the optimizer.
        train: Training images, shuffled and augmented.
        val: Validation images.
        clean: The training images as they are, in a fixed order, for methods that measure on them.
        val_attack: Attack for the robust validation accuracy.
        accelerator: Devices and processes.
        autocast: Precision of attacks and losses.
        folding: Form of the backbone that is attacked.
    """

    model: RobustModel
    method: Method
    step: Step
    optimizer: Any
    train: Loader
    val: Loader
    clean: Loader | None
    val_attack: PGD
    accelerator: Accelerator
    autocast: Autocast
    folding: Folding

    def run(self, lr: float, bar: tqdm[NoReturn]) -> Row:
        """Train for an epoch at a rate; return loss terms, gauges and validation accuracies.

        Raises:
            TrainingError: If a loss or a weight is not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with evaluating(self.model), self.autocast():  # loss weights, unlike verdicts, may be set in low precision
            self.method.begin_epoch(self.model, self._accuracy)
        losses = self._train(bar)
        with evaluating(self.model):
            natural = self._score(self.model, self.val)
            robust = self._score(self.model, self.val, self.val_attack)
        scores = {"val_natural": natural.accuracy, "val_robust": robust.accuracy}
        return self.method.gauges() | losses | scores

    def _accuracy(self, way: Forward, *, augmented: bool = True, images: int | None = None) -> float:
        batches = self.train if augmented else self.clean
        if batches is None:
            raise ValueError("the method measures on clean training images; pass them to fit(clean=...)")
        return self._score(way, _first(batches, images, self.accelerator.num_processes)).accuracy

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
        self._check_finite(means)
        return means | {"images": images}

    def _check_finite(self, means: Row) -> None:
        # a finite loss may still have had a gradient that was not: then the weights tell
        finite = all(bool(parameter.isfinite().all()) for parameter in self.model.parameters())
        if not finite or not all(map(math.isfinite, means.values())):
            raise TrainingError(
                f"training diverged: losses {means}, weights {'finite' if finite else 'not finite'}; "
                "lower --lr, or train with --precision fp32"
            )

    def _attack(self, x: Tensor, y: Tensor) -> Tensor:
        with evaluating(self.model), self.autocast(), self.model.running(self.folding.network(self.model.backbone)):
            return self.method.attack(self.model, x, y)

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.optimizer.step()

    def _score(self, way: Forward, batches: Batches, attack: PGD | None = None) -> Score:
        gather = self.accelerator.gather_for_metrics
        return verdicts(way, batches, attack, autocast=self.autocast, gather=gather).score


def _first(batches: Batches, images: int | None, processes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches until there are so many images, over all processes; all of them without a number."""
    seen = 0
    for x, y in batches:
        yield x, y
        seen += len(y) * processes
        if images is not None and seen >= images:
            return
