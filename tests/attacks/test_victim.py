"""Which form of a model an attack looks at: gradients may be rounded, what is compared may not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autolora.attacks.autoattack.apgd import APGD, APGDT
from autolora.attacks.autoattack.ensemble import Part
from autolora.attacks.autoattack.fab import FABT
from autolora.attacks.autoattack.square import Square
from autolora.attacks.victim import Victim
from autolora.threat import ThreatModel


class Counting:
    """A linear model that counts how often it is asked for a gradient, and how often for values alone."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer, self.gradients, self.values = layer, 0, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.gradients += int(x.requires_grad)
        self.values += int(not x.requires_grad)
        return self.layer(x.flatten(1))


def asked(part: Part) -> dict[str, Counting]:
    torch.manual_seed(0)
    layer = nn.Linear(48, 4)
    x = torch.rand(6, 3, 4, 4)
    forms = {name: Counting(layer) for name in ("model", "search", "slope")}
    victim = Victim(forms["model"], forms["search"], forms["slope"])
    part(victim, x, layer(x.flatten(1)).argmax(dim=1), torch.Generator().manual_seed(0))
    return forms


@pytest.mark.parametrize("part", [APGD(ThreatModel("1/255"), steps=5), APGDT(ThreatModel("1/255"), steps=5)])
def test_auto_pgd_takes_its_gradients_from_the_form_in_low_precision(part: Part) -> None:
    forms = asked(part)
    assert forms["slope"].gradients > 5
    assert forms["model"].gradients == forms["search"].gradients == 0
    assert forms["model"].values >= 2, "the natural images, and what was found"


@pytest.mark.parametrize("part", [FABT(ThreatModel("1/255"), steps=5), Square(ThreatModel("1/255"), queries=20)])
def test_what_lives_on_comparing_logits_never_sees_low_precision(part: Part) -> None:
    forms = asked(part)
    assert forms["slope"].gradients == forms["slope"].values == 0
    assert forms["search"].gradients + forms["search"].values > 5


def test_without_forms_the_model_is_searched_and_nothing_is_looked_at_twice() -> None:
    calls: list[int] = []

    def model(x: Tensor) -> Tensor:
        calls.append(len(x))
        return -x.flatten(1)[:, :3]

    victim, x = Victim(model), torch.rand(5, 1, 1, 3)
    assert torch.equal(victim(x), victim.climbed(x)) and not victim.indirect
    victim.fallen(x, torch.zeros(5, dtype=torch.long), -x.flatten(1))
    assert len(calls) == 2


def test_a_fall_on_either_form_is_confirmed_by_the_model() -> None:
    right = torch.tensor([0, 0])
    logits = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    for search, slope in ((torch.neg, None), (None, torch.neg)):
        victim = Victim(lambda x: torch.tensor([[2.0, 1.0]]).expand(len(x), 2), search, slope)
        assert not victim.fallen(torch.rand(2, 1, 1, 1), right, logits).any()
