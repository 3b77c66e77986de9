"""The passes of AutoAttack that a forecast counts with, against a network that counts how often it is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from autolora.attacks.autoattack.apgd import APGD, APGDT
from autolora.attacks.autoattack.ensemble import AutoAttack
from autolora.attacks.autoattack.fab import FABT
from autolora.attacks.autoattack.square import Square
from autolora.attacks.victim import Victim
from autolora.experiments.planning.attack_passes import Passes, begun, passes
from autolora.threat import ThreatModel

THREAT = ThreatModel("8/255")


class Counting:
    """A linear classifier that no small change moves from class 0, and that counts images, there and back."""

    def __init__(self, classes: int) -> None:
        self.weight = torch.randn(3 * 4 * 4, classes, generator=torch.Generator().manual_seed(0))
        self.lead = 1e3 * torch.eye(classes)[0]
        self.forwards = self.backwards = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        if x.requires_grad:
            x.register_hook(self._back)  # type: ignore[no-untyped-call]
        return x.flatten(1) @ self.weight + self.lead

    def _back(self, grad: Tensor) -> None:
        self.backwards += len(grad)


def counted(part: Any, classes: int, *, indirect: bool = False, images: int = 2) -> Passes:
    model = Counting(classes)
    victim = Victim(model, model, model) if indirect else Victim(model)
    x = torch.rand(images, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    y = torch.zeros(images, dtype=torch.long)
    if isinstance(part, AutoAttack):
        assert (part(victim, x, y).by == -1).all()  # all of them stand
    else:
        assert not part(victim, x, y, torch.Generator().manual_seed(2))[1].any()
    assert model.forwards % images == 0 and model.backwards % images == 0
    return Passes(model.forwards // images, model.backwards // images)


@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize(
    "part",
    [
        APGD(THREAT, steps=7),
        APGD(THREAT, steps=4, restarts=2),
        APGDT(THREAT, steps=5, targets=3),
        APGDT(THREAT, steps=2, restarts=3),
        FABT(THREAT, steps=3),
        FABT(THREAT, steps=2, targets=2, restarts=2),
        Square(THREAT, queries=11),
        Square(THREAT, queries=5, restarts=2),
    ],
)
def test_the_passes_of_an_attack_are_those_that_it_makes(part: Any, classes: int, indirect: bool) -> None:
    assert passes(part, classes, indirect=indirect) == counted(part, classes, indirect=indirect)


@pytest.mark.parametrize("version", ["standard", "fast"])
def test_the_parts_of_autoattack_and_one_verdict_are_all_that_it_asks_for(version: Any) -> None:
    classes, attack = 4, AutoAttack(THREAT, version)
    parts = [passes(part, classes) for part in attack.parts().values()]
    whole = Passes(sum(part.forwards for part in parts), sum(part.backwards for part in parts))
    assert counted(attack, classes, images=1) == Passes(whole.forwards + 1, whole.backwards)


def test_the_published_counts() -> None:
    """100 steps of APGD, 9 targets of 100 steps in APGD and FAB, 5,000 queries: Croce and Hein, 2020, section 5."""
    ce, targeted, fab, square = (passes(part, 10) for part in AutoAttack(THREAT).parts().values())
    assert (ce.backwards, targeted.backwards, fab.backwards, square.backwards) == (101, 9 * 101, 900, 0)
    assert square.forwards == 5000 and fab.forwards == 1801


@pytest.mark.parametrize("part", AutoAttack(THREAT).parts().values(), ids=AutoAttack(THREAT).parts())
def test_an_attack_that_is_begun_is_the_same_but_short(part: Any) -> None:
    short: Any = begun(part)
    assert type(short) is type(part) and short.threat == part.threat
    assert passes(short, 10).total <= 12
    shortened = {name: getattr(short, name) for name in ("steps", "targets", "queries") if hasattr(part, name)}
    assert replace(part, **shortened) == short


def test_an_unknown_attack_has_no_count_rather_than_a_wrong_one() -> None:
    with pytest.raises(TypeError, match="passes of object are not known"):
        passes(object(), 10)  # type: ignore[arg-type]
