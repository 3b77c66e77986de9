"""What a training loop needs of a learning-rate schedule, and what every schedule refuses."""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import Any, Protocol

from autolora.errors import InputError


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


def check_rate(lr: float) -> None:
    """Refuse a rate that is not positive and finite.

    Raises:
        InputError: If it is not.
    """
    if not (0 < lr < math.inf):
        raise InputError(f"lr={lr} is not a positive number; try 0.01")


def check_choice(name: str, given: str, choices: tuple[str, ...]) -> None:
    """Refuse what is none of the choices, and name the nearest.

    Raises:
        InputError: If it is none of them.
    """
    if given not in choices:
        close = get_close_matches(given, choices, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"{name}={given!r} is not one of {', '.join(choices) or 'those: it has none'}{hint}")
