"""Learning rates that follow a plan, whatever the scores: in steps, along a cosine, constant."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from autolora.errors import InputError
from autolora.schedules.schedule import check_rate


class Planned(ABC):
    """A rate that depends on the number of finished epochs only: it never stops early and never asks to go back."""

    stopped = False

    def __init__(self, lr: float) -> None:
        check_rate(lr)
        self.initial = lr
        self.epoch = 0

    @abstractmethod
    def rate(self, epoch: int) -> float:
        """Return the learning rate after ``epoch`` finished epochs."""

    @property
    def lr(self) -> float:
        """Learning rate of the epoch that comes next."""
        return self.rate(self.epoch)

    def observe(self, score: float) -> bool:
        """Count an epoch; its score does not matter, and the answer is always False."""
        self.epoch += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return the number of finished epochs."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.epoch = state["epoch"]


class MultiStep(Planned):
    """Multiply the rate by ``gamma`` after each milestone: after 30 and 50 epochs of 60 in TWINS (Liu et al., 2023).

    Args:
        lr: Initial rate, positive.
        milestones: Numbers of finished epochs from 1 on, in increasing order; without any the rate is constant.
        gamma: What the rate is multiplied by, positive.

    Raises:
        InputError: If an argument is out of range, or milestones are out of order.
    """

    def __init__(self, lr: float, milestones: Sequence[int] = (30, 50), gamma: float = 0.1) -> None:
        super().__init__(lr)
        if list(milestones) != sorted(milestones) or any(m < 1 for m in milestones):
            raise InputError(f"milestones={milestones} are not increasing epochs from 1 on; use for example 30 and 50")
        if not 0 < gamma < math.inf:
            raise InputError(f"gamma={gamma}: what a rate is multiplied by is positive; the papers take 0.1")
        self.milestones, self.gamma = tuple(milestones), gamma

    def rate(self, epoch: int) -> float:
        """Return the learning rate after ``epoch`` finished epochs."""
        return self.initial * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


class Cosine(Planned):
    r"""Half a cosine from ``lr`` to ``minimum`` (Loshchilov and Hutter, 2017, eq. 5) after a linear ``warmup``.

    .. math:: \eta_e = \eta_{min} + \tfrac12 (\eta - \eta_{min}) (1 + \cos(\pi (e - warmup) / (epochs - warmup)))

    In the warm-up, epoch e = 0, 1, ... runs at :math:`\eta (e + 1) / (warmup + 1)`.

    Args:
        lr: Highest rate, positive.
        epochs: Length of the run.
        warmup: Epochs of the warm-up, fewer than ``epochs``.
        minimum: Rate after the last epoch, 0 or more.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(self, lr: float, epochs: int, warmup: int = 0, minimum: float = 0) -> None:
        super().__init__(lr)
        if not 0 <= warmup < epochs:
            raise InputError(
                f"warmup={warmup} does not fit in epochs={epochs}; it lies in 0..{max(epochs - 1, 0)}: set it "
                "(--schedule-options.warmup), or take more epochs"
            )
        if not 0 <= minimum < math.inf:
            raise InputError(f"minimum={minimum}: a learning rate is 0 or more")
        self.epochs, self.warmup, self.minimum = epochs, warmup, minimum

    def rate(self, epoch: int) -> float:
        """Return the learning rate after ``epoch`` finished epochs; from ``epochs`` on it is ``minimum``."""
        if epoch < self.warmup:
            return self.initial * (epoch + 1) / (self.warmup + 1)
        share = min(1.0, (epoch - self.warmup) / (self.epochs - self.warmup))
        return self.minimum + (self.initial - self.minimum) * (1 + math.cos(math.pi * share)) / 2


class Constant(Planned):
    """The same rate throughout.

    Args:
        lr: The rate, positive.

    Raises:
        InputError: If it is not.
    """

    def rate(self, epoch: int) -> float:
        """Return the learning rate, whatever the epoch."""
        return self.initial
