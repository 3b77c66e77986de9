"""One epoch: attack, loss, step over the training images; natural and robust accuracy on the validation images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from autolora.attacks import PGD, Forward
from autolora.data import WaitingTime
from autolora.errors import RunError
from autolora.evaluation import Batches, Score, verdicts
from autolora.methods import Method
from autolora.models import RobustModel, evaluating
from autolora.training.draws import Draws
from autolora.training.interruption import Interruption
from autolora.training.precision import Autocast
from autolora.training.random_state import RandomState, random_state
from autolora.training.replicas import everywhere
from autolora.training.update import NotFinite, Update

Loader = DataLoader[tuple[Tensor, Tensor]]
Row = dict[str, float]


class TrainingError(RunError):
    """Training cannot go on: a loss or a weight is not finite.

    Args:
        message: One line.
        images: Names of the images of the batch, if it is known which one it was.
    """

    def __init__(self, message: str, images: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.images = tuple(images)


@dataclass
class Partial:
    """How far an epoch has come, in what has to outlive its interruption.

    Args:
        batches: Training batches that were learnt from.
        images: Images in them, over all processes.
        totals: Sums of the loss terms, by name, in this process.
        seconds: What the epoch took in earlier sessions of the run.
        waited: Seconds in which training waited for its next batch, over all sessions.
        random: Where the random generators stood after the last batch; None while there are more to come.
        started: When this session began with it, by ``time.perf_counter``.
    """

    batches: int = 0
    images: int = 0
    totals: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    waited: float = 0.0
    random: RandomState | None = None
    started: float = field(default_factory=time.perf_counter)

    def elapsed(self) -> float:
        """Return the seconds of the epoch so far, over all sessions."""
        return self.seconds + time.perf_counter() - self.started


@dataclass
class Epoch:
    """One pass over the training images and one over the validation images, with all that they need.

    Args:
        model: What is trained.
        method: Attack and loss.
        update: How it learns from a batch.
        train: Training images, shuffled and augmented.
        val: Validation images.
        clean: The training images as they are, in a fixed order, for methods that measure on them.
        val_attack: Attack for the robust validation accuracy.
        accelerator: Devices and processes.
        autocast: Precision of attacks and losses.
        interruption: Told where a signal may end an epoch at once.
        names: What the training images are called, to say which batch went wrong.
        partial: The epoch that is under way; None between two epochs.
    """

    model: RobustModel
    method: Method
    update: Update
    train: Draws
    val: Draws
    clean: Draws | None
    val_attack: PGD
    accelerator: Accelerator
    autocast: Autocast
    interruption: Interruption
    names: Sequence[str] = ()
    partial: Partial | None = None

    def run(self, lr: float, bar: tqdm[NoReturn], after_batch: Callable[[], None]) -> Row:
        """Train for an epoch at a rate, or for the rest of it; return loss terms, gauges and validation accuracies.

        Args:
            lr: Learning rate.
            bar: Progress bar, a unit per batch.
            after_batch: Called after each batch, when everything is in a state that can be saved.

        Raises:
            TrainingError: If a loss or a weight is not finite.
            LoadingError: If the next batch cannot be made.
        """
        for group in self.update.optimizer.param_groups:
            group["lr"] = lr
        if self.partial is None:
            self._begin()
        assert self.partial is not None
        if self.partial.random is None:
            if self.partial.batches < len(self.train):
                self._train(self.partial, bar, after_batch)
            self.partial.random = random_state()  # validation may draw, and is repeated when it is interrupted
        losses = self._means(self.partial)
        self.method.end_training(losses)
        self.update.shards.gather()
        with self.interruption.at_once(), evaluating(self.model):
            natural = self._score(self.model, self.val)
            robust = self._score(self.model, self.val, self.val_attack)
        scores = {"val_natural": natural.accuracy, "val_robust": robust.accuracy}
        return self.method.gauges() | losses | {"images": self.partial.images} | scores

    def check_weights(self) -> None:
        """Refuse to go on from weights that are no numbers: a finite loss may have had a gradient that was not.

        Raises:
            TrainingError: If a weight is not finite; in all processes, if it is so in one.
        """
        if not everywhere(self.update.shards.finite(), self.accelerator):
            raise TrainingError(f"training diverged: weights are not finite{self._where()}; {ADVICE}")

    def _begin(self) -> None:
        started = time.perf_counter()
        self.update.shards.gather()
        # loss weights, unlike verdicts, may be set in low precision
        with self.interruption.at_once(), evaluating(self.model), self.autocast():
            self.method.begin_epoch(self.model, self._accuracy)
        self.method.begin_training(self.model)
        self.partial = Partial(started=started)

    def _accuracy(self, way: Forward, *, augmented: bool = True, images: int | None = None) -> float:
        batches = self.train if augmented else self.clean
        if batches is None:
            raise ValueError("the method measures on clean training images; pass them to fit(clean=...)")
        return self._score(way, batches, images=images).accuracy

    def _train(self, partial: Partial, bar: tqdm[NoReturn], after_batch: Callable[[], None]) -> None:
        waiting, before = WaitingTime(self.train), partial.waited
        for x, y in waiting:
            partial.waited = before + waiting.waited
            try:
                losses = self.update(x, y)
            except NotFinite as error:
                message = f"training diverged: {error}{self._where(1)}; {ADVICE}"
                raise TrainingError(message, [self.names[row] for row in self.train.rows if self.names]) from error
            for name, term in losses.items():
                partial.totals[name] = partial.totals.get(name, torch.zeros_like(term)) + term
            partial.images += len(y) * self.accelerator.num_processes
            partial.batches += 1
            bar.update()
            after_batch()

    def _where(self, ahead: int = 0) -> str:
        return f" in batch {self.partial.batches + ahead} of {len(self.train)}" if self.partial is not None else ""

    def _means(self, partial: Partial) -> Row:
        reduce = self.accelerator.reduce
        means = {name: float(reduce(term, "mean")) / len(self.train) for name, term in partial.totals.items()}
        if not all(map(math.isfinite, means.values())):
            raise TrainingError(f"training diverged: losses {means}; {ADVICE}")
        self.check_weights()
        return means

    def _score(self, way: Forward, batches: Draws, attack: PGD | None = None, images: int | None = None) -> Score:
        """Judge this process's share, and count over all processes: one score for every decision."""
        processes = self.accelerator.num_processes
        own = Score(0, 0)
        if len(batches) or processes == 1:  # of few images, a process may have none
            own = verdicts(way, _first(batches, images, processes), attack, searching=self.update.attacked).score
        counts = torch.tensor([own.correct, own.total], device=self.accelerator.device)
        correct, total = self.accelerator.reduce(counts, "sum").tolist()
        return Score(correct, total)


ADVICE = "lower --lr, or train with --precision fp32"


def _first(batches: Batches, images: int | None, processes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches until there are so many images, over all processes; all of them without a number."""
    seen = 0
    for x, y in batches:
        yield x, y
        seen += len(y) * processes
        if images is not None and seen >= images:
            return
