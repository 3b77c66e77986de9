"""Learning-rate schedules: objects that are told the validation score of each epoch and own the rate of the next."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from itertools import pairwise
from typing import Any, Literal, Protocol, get_args

from autolora.errors import InputError

__all__ = ["SCHEDULES", "AutoLR", "Constant", "Cosine", "MultiStep", "Planned", "Schedule", "build_schedule"]

Condition1 = Literal["code", "apgd", "literal"]
Condition2 = Literal["code", "apgd"]


class Schedule(Protocol):
    """What a training loop needs: the rate now, whether to go on, and somewhere to report the score of an epoch."""

    @property
    def lr(self) -> float:
        """Learning rate of the epoch that comes next."""

    @property
    def stopped(self) -> bool:
        """Whether training should end here."""

    def observe(self, score: float) -> bool:
        """Take the score of the epoch that has ended; True: the rate fell, go back to the best weights."""

    def state_dict(self) -> dict[str, Any]:
        """Return what has happened so far, as plain numbers and lists."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""


class AutoLR:
    r"""AutoLoRa's learning rate: halved where robust validation accuracy stops rising (Xu et al., 2024, section 4.2).

    Let :math:`RA_j` be the score after epoch :math:`j + 1` and :math:`0 = c_0 < c_1 < \dots` the checkpoints. After
    epoch :math:`c_w + 1` the rate is halved, and the best weights should be restored, if

    .. math:: \#\{ j \in [c_{w-1}, c_w) : RA_{j+1} > RA_j \} < \rho\,(c_w - c_{w-1}) \qquad (1)

    or if :math:`\max_{j \le c_w} RA_j = \max_{j \le c_{w-1}} RA_j` (2). A tie is not a rise. At the first checkpoint
    there is none before it to compare with, and (2) does not apply (neither in the release nor in AutoPGD).

    Args:
        lr: Initial rate.
        epochs: Length of the run; checkpoints lie before its end.
        checkpoints: How many the run is divided into, or the increasing list itself, starting with 0. A number M
            gives 0, s, 2s, ... < epochs with s = max(4, epochs // M): epochs 60 and M 15 are the paper's
            0, 4, ..., 56. The floor of 4 is there because s comparisons can only show the shares 0, 1/s, ..., 1: with
            three or fewer, "three quarters rose" means "all rose", and one noisy epoch would halve the rate.
        rho: The share in (1), in [0, 1].
        condition1: ``"code"``, the default, is (1) as the authors released it. ``"apgd"`` is (1) with <=, as in
            AutoPGD (Croce and Hein, 2020) from where it comes: with 4 comparisons and rho 0.75 all have to rise.
            ``"literal"`` counts falls, ``RA[j + 1] < RA[j]``, with <=, as printed in the paper; it halves unless the
            accuracy keeps falling, contradicts the text below it and is here to show that.
        condition2: ``"code"``, the default, is (2) as released. ``"apgd"`` asks in addition that the rate was not
            halved at the previous checkpoint, as the paper and AutoPGD do; in the release that test is always true.
        minimum: Training stops when the rate is below this; 10 halvings of 0.01 are needed for 1e-5.

    Raises:
        InputError: If an argument is out of range, or the checkpoints do not increase from 0.
    """

    def __init__(
        self,
        lr: float = 0.01,
        epochs: int = 60,
        checkpoints: int | Sequence[int] = 15,
        rho: float = 0.75,
        condition1: Condition1 = "code",
        condition2: Condition2 = "code",
        minimum: float = 1e-5,
    ) -> None:
        _check_rate(lr)
        _check_choice("condition1", condition1, get_args(Condition1))
        _check_choice("condition2", condition2, get_args(Condition2))
        if lr < minimum:
            raise InputError(f"lr={lr} is below minimum={minimum}, where training stops; raise lr or lower minimum")
        if not 0 <= rho <= 1:
            raise InputError(f"rho={rho} is not a share in [0, 1]; the paper uses 0.75")
        self.lr, self.rho, self.minimum = lr, rho, minimum
        self.condition1, self.condition2 = condition1, condition2
        self.checkpoints = _checkpoints(checkpoints, epochs)
        self._scores: list[float] = []
        self._halved_last = False

    @property
    def stopped(self) -> bool:
        """Whether the rate has fallen below ``minimum``."""
        return self.lr < self.minimum

    def observe(self, score: float) -> bool:
        """Take the robust validation accuracy of the epoch that has ended; True: rate halved, restore the best."""
        self._scores.append(float(score))
        now = len(self._scores) - 1
        if now == 0 or now not in self.checkpoints:
            return False
        before = self.checkpoints[self.checkpoints.index(now) - 1]
        halve = self._too_few_rises(before, now) or self._no_new_best(before)
        if halve:
            self.lr /= 2
        self._halved_last = halve
        return halve

    def state_dict(self) -> dict[str, Any]:
        """Return the rate, the scores so far, and whether the last checkpoint halved the rate."""
        return {"lr": self.lr, "scores": list(self._scores), "halved_last": self._halved_last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned; the arguments of the constructor are not part of it."""
        self.lr, self._scores, self._halved_last = state["lr"], list(state["scores"]), state["halved_last"]

    def _too_few_rises(self, before: int, now: int) -> bool:
        stage = self._scores[before : now + 1]
        rises = sum(after > score for score, after in pairwise(stage))
        needed = self.rho * (now - before)
        if self.condition1 == "literal":
            return sum(after < score for score, after in pairwise(stage)) <= needed
        return rises <= needed if self.condition1 == "apgd" else rises < needed

    def _no_new_best(self, before: int) -> bool:
        unchanged = before > 0 and max(self._scores) == max(self._scores[: before + 1])
        return unchanged and not (self.condition2 == "apgd" and self._halved_last)


class Planned(ABC):
    """A rate that depends on the number of finished epochs only: it never stops early and never asks to go back."""

    stopped = False

    def __init__(self, lr: float) -> None:
        _check_rate(lr)
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
    """Multiply the rate by ``gamma`` after each milestone, in epochs: 30 and 50 of 60 in TWINS (Liu et al., 2023)."""

    def __init__(self, lr: float, milestones: Sequence[int] = (30, 50), gamma: float = 0.1) -> None:
        super().__init__(lr)
        if list(milestones) != sorted(milestones) or any(m < 1 for m in milestones):
            raise InputError(f"milestones={milestones} are not increasing epochs from 1 on; use for example 30 and 50")
        self.milestones, self.gamma = tuple(milestones), gamma

    def rate(self, epoch: int) -> float:
        """Return the learning rate after ``epoch`` finished epochs."""
        return self.initial * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


class Cosine(Planned):
    r"""Half a cosine from ``lr`` to ``minimum`` (Loshchilov and Hutter, 2017, eq. 5) after a linear ``warmup``.

    .. math:: \eta_e = \eta_{min} + \tfrac12 (\eta - \eta_{min}) (1 + \cos(\pi (e - warmup) / (epochs - warmup)))

    In the warm-up, epoch e = 0, 1, ... runs at :math:`\eta (e + 1) / (warmup + 1)`.
    """

    def __init__(self, lr: float, epochs: int, warmup: int = 0, minimum: float = 0) -> None:
        super().__init__(lr)
        if not 0 <= warmup < epochs:
            raise InputError(f"warmup={warmup} does not fit in epochs={epochs}; it lies in 0..{max(epochs - 1, 0)}")
        self.epochs, self.warmup, self.minimum = epochs, warmup, minimum

    def rate(self, epoch: int) -> float:
        """Return the learning rate after ``epoch`` finished epochs; from ``epochs`` on it is ``minimum``."""
        if epoch < self.warmup:
            return self.initial * (epoch + 1) / (self.warmup + 1)
        share = min(1.0, (epoch - self.warmup) / (self.epochs - self.warmup))
        return self.minimum + (self.initial - self.minimum) * (1 + math.cos(math.pi * share)) / 2


class Constant(Planned):
    """The same rate throughout."""

    def rate(self, epoch: int) -> float:
        """Return the learning rate, whatever the epoch."""
        return self.initial


def _paper_milestones(epochs: int) -> tuple[int, int]:
    """Half and five sixths of the run, as 30 and 50 are of 60 epochs; rounded up, so that a short run starts at lr."""
    return math.ceil(epochs * 30 / 60), math.ceil(epochs * 50 / 60)


def _multistep(lr: float, epochs: int, *, milestones: Sequence[int] | None = None, gamma: float = 0.1) -> MultiStep:
    return MultiStep(lr, milestones or _paper_milestones(epochs), gamma)


def _constant(lr: float, epochs: int) -> Constant:
    return Constant(lr)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "auto": AutoLR,
    "multistep": _multistep,
    "cosine": Cosine,
    "constant": _constant,
}
"""The schedules by name, each built from an initial rate, a number of epochs, and options of its own."""


def build_schedule(name: str, lr: float, epochs: int, options: Mapping[str, Any] | None = None) -> Schedule:
    """Build a schedule of ``SCHEDULES`` for a run of ``epochs`` epochs that starts at rate ``lr``.

    Args:
        name: ``"auto"``, ``"multistep"``, ``"cosine"`` or ``"constant"``.
        lr: Initial rate.
        epochs: Length of the run; ``"multistep"`` has its steps at one half and five sixths of it by default.
        options: Further arguments of the schedule's constructor.

    Raises:
        InputError: If there is none of that name, an option is unknown, or its constructor refuses the arguments.
    """
    _check_choice("schedule", name, tuple(SCHEDULES))
    known = tuple(option for option in signature(SCHEDULES[name]).parameters if option not in ("lr", "epochs"))
    for option in options or {}:
        _check_choice(f"option of the schedule {name}", option, known)
    return SCHEDULES[name](lr, epochs, **(options or {}))


def _checkpoints(given: int | Sequence[int], epochs: int) -> tuple[int, ...]:
    if epochs < 1:
        raise InputError(f"epochs={epochs}: a schedule needs at least one epoch")
    if isinstance(given, int):
        if given < 1:
            raise InputError(f"checkpoints={given}: divide the run into at least one stage, or give the list of epochs")
        return tuple(range(0, epochs, max(4, epochs // given)))
    checkpoints = tuple(given)
    if checkpoints[:1] != (0,) or any(a >= b for a, b in pairwise(checkpoints)):
        raise InputError(f"checkpoints={list(checkpoints)} do not increase from 0; use for example [0, 4, 8, 12]")
    return checkpoints


def _check_rate(lr: float) -> None:
    if not (0 < lr < math.inf):
        raise InputError(f"lr={lr} is not a positive number; try 0.01")


def _check_choice(name: str, given: str, choices: tuple[str, ...]) -> None:
    if given not in choices:
        close = get_close_matches(given, choices, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"{name}={given!r} is not one of {', '.join(choices) or 'those: it has none'}{hint}")
