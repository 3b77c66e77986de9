"""The learning rate that sets itself: AutoLoRa's, halved where robust validation accuracy stops rising."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

from autolora.errors import InputError
from autolora.schedules.schedule import check_choice, check_rate

Condition1 = Literal["code", "apgd", "literal"]
Condition2 = Literal["code", "apgd"]


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
        check_rate(lr)
        check_choice("condition1", condition1, get_args(Condition1))
        check_choice("condition2", condition2, get_args(Condition2))
        if not minimum >= 0:
            raise InputError(f"minimum={minimum}: a learning rate is 0 or more; the default is 1e-5")
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
