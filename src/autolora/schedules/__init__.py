"""Learning-rate schedules: objects that are told the validation score of each epoch and own the rate of the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from typing import Any

from autolora.errors import InputError
from autolora.schedules.automatic import AutoLR
from autolora.schedules.planned import Constant, Cosine, MultiStep, Planned
from autolora.schedules.schedule import Schedule, check_choice

__all__ = ["SCHEDULES", "AutoLR", "Constant", "Cosine", "MultiStep", "Planned", "Schedule", "build_schedule"]


def _paper_milestones(epochs: int) -> tuple[int, int]:
    """Half and five sixths of the run, as 30 and 50 are of 60 epochs; rounded up, so that a short run starts at lr."""
    return math.ceil(epochs * 30 / 60), math.ceil(epochs * 50 / 60)


def _multistep(lr: float, epochs: int, *, milestones: Sequence[int] | None = None, gamma: float = 0.1) -> MultiStep:
    return MultiStep(lr, _paper_milestones(epochs) if milestones is None else milestones, gamma)


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
    check_choice("schedule", name, tuple(SCHEDULES))
    known = tuple(option for option in signature(SCHEDULES[name]).parameters if option not in ("lr", "epochs"))
    for option in options or {}:
        _check_option(name, option, known)
    return SCHEDULES[name](lr, epochs, **(options or {}))


def _check_option(name: str, option: str, known: tuple[str, ...]) -> None:
    if option not in known:
        close = get_close_matches(option, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known) or 'none'}"
        raise InputError(f"schedule {name} has no option {option!r}; {hint}")
