"""How often AutoAttack asks the network for one image that no part fells: forwards and backwards, attack by attack.

An image that falls costs less, so these are the most; they are what a forecast can know before there is a model.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch
from typing import NamedTuple

from autolora.attacks.autoattack.apgd import APGD, APGDT
from autolora.attacks.autoattack.ensemble import Part
from autolora.attacks.autoattack.fab import FABT
from autolora.attacks.autoattack.square import Square

VERDICTS = 2  # forwards of an image before the first attack: what is predicted, and whether it is right
FEW_STEPS, FEW_QUERIES = 2, 6  # of an attack that is begun in order to be timed


class Passes(NamedTuple):
    """Passes of one image through the network.

    Args:
        forwards: From the image to the logits.
        backwards: From a loss back to the image.
    """

    forwards: int
    backwards: int

    @property
    def total(self) -> int:
        """Return how many there are of both."""
        return self.forwards + self.backwards


@singledispatch
def passes(part: Part, classes: int, *, indirect: bool = False) -> Passes:
    """Return the passes of an attack through the network for an image that stands.

    Args:
        part: An attack of AutoAttack.
        classes: How many classes K; there are K - 1 wrong ones to aim at.
        indirect: Whether the search has forms of the model of its own, so that the model itself is asked once more.

    Raises:
        TypeError: If the attack is none that is known here.
    """
    raise TypeError(f"the passes of {type(part).__name__} are not known")


@passes.register
def _(part: APGD, classes: int, *, indirect: bool = False) -> Passes:
    return _ascents(part.restarts, part.steps, indirect)


@passes.register
def _(part: APGDT, classes: int, *, indirect: bool = False) -> Passes:
    return _ascents(_aims(part.targets, classes) * part.restarts, part.steps, indirect)


@passes.register
def _(part: FABT, classes: int, *, indirect: bool = False) -> Passes:
    steps = _aims(part.targets, classes) * part.restarts * part.steps
    return Passes(1 + 2 * steps, steps)


@passes.register
def _(part: Square, classes: int, *, indirect: bool = False) -> Passes:
    return Passes(1 + part.restarts * (part.queries - 1), 0)


@singledispatch
def begun(part: Part) -> Part:
    """Return an attack that does the same for a few steps only.

    Raises:
        TypeError: If the attack is none that is known here.
    """
    raise TypeError(f"{type(part).__name__} cannot be begun")


@begun.register
def _(part: APGD) -> Part:
    return replace(part, steps=FEW_STEPS)


@begun.register(APGDT)
@begun.register(FABT)
def _(part: APGDT | FABT) -> Part:
    return replace(part, steps=FEW_STEPS, targets=1)


@begun.register
def _(part: Square) -> Part:
    return replace(part, queries=FEW_QUERIES)


def _ascents(runs: int, steps: int, indirect: bool) -> Passes:
    """Count the natural verdict, each run's start and steps, and the model's word on what the search has found."""
    looks = runs * (steps + 1)
    return Passes(1 + looks + indirect, looks)


def _aims(targets: int, classes: int) -> int:
    return min(targets, classes - 1)
