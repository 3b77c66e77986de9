"""The ensemble: order, worst case, labels, and the closed form of a linear model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from autolora.attacks.autoattack import ensemble
from autolora.attacks.autoattack.apgd import APGD, APGDT
from autolora.attacks.autoattack.ensemble import NATURAL, STANDING, AutoAttack, Part
from autolora.attacks.autoattack.fab import FABT
from autolora.attacks.autoattack.square import Square
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.threat import Norm, ThreatModel

THREAT = ThreatModel("8/255")


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Linear(nn.Module):
    """A linear model, whose robust accuracy has a closed form."""

    def __init__(self, classes: int, features: int = 12) -> None:
        super().__init__()
        self.layer = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))

    def distance(self, x: Tensor, y: Tensor, norm: str) -> Tensor:
        """Radius (N,) within which an image is right: the smallest margin over the dual norm; below 0 if wrong."""
        logits, weight = self(x), self.layer.weight
        difference = weight[y].unsqueeze(1) - weight.unsqueeze(0)
        dual = difference.abs().sum(-1) if norm == "Linf" else difference.norm(dim=-1)
        margin = logits.gather(1, y.unsqueeze(1)) - logits
        return (margin / dual).scatter(1, y.unsqueeze(1), torch.inf).amin(dim=1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("classes", [2, 3, 5, 10])
def test_on_a_linear_model_the_verdicts_are_those_of_the_closed_form(norm: Norm, classes: int) -> None:
    model = Linear(classes).eval().requires_grad_(False)
    x = 0.4 + 0.2 * torch.rand(60, 3, 2, 2)  # away from the borders of the pixel range, which the form ignores
    y = model(x).argmax(dim=1)
    y[:5] = (y[:5] + 1) % classes
    distance = model.distance(x, y, norm)
    threat = ThreatModel(float(distance.median()) + 1e-5, norm)
    falls = AutoAttack(threat, "fast")(model, x, y)
    assert torch.equal(falls.by == STANDING, distance > threat.radius)
    assert torch.equal(falls.by == NATURAL, distance < 0)
    assert (model(falls.x_adv[falls.by > 0]).argmax(dim=1) != y[falls.by > 0]).all()


@dataclass(frozen=True)
class Fells:
    """Fells the images whose first pixel lies below a threshold, and writes down what it is shown."""

    below: float
    seen: list[int]
    seeds: list[int]

    def __call__(
        self, victim: Victim, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        assert generator is not None
        self.seen.append(len(x))
        self.seeds.append(generator.initial_seed())
        return x + 0.01, x[:, 0, 0, 0] < self.below


class Planned(AutoAttack):
    first = Fells(0.3, [], [])
    second = Fells(0.6, [], [])

    def parts(self) -> dict[str, Part]:
        return {"first": self.first, "second": self.second}


def test_each_part_sees_what_the_ones_before_it_left_standing() -> None:
    x = torch.linspace(0.05, 0.95, 10).view(10, 1, 1, 1).expand(10, 3, 2, 2).contiguous()
    model = Linear(3).eval()
    y = model(x).argmax(dim=1).detach()
    y[9] = (y[9] + 1) % 3
    told: list[tuple[str, int]] = []
    falls = Planned(THREAT)(model, x, y, seed=4, on_part=lambda part, left: told.append((part, left)))
    assert falls.by.tolist() == [1, 1, 1, 2, 2, 2, STANDING, STANDING, STANDING, NATURAL]
    assert told == [("first", 9), ("second", 6)] and Planned.first.seen == [9] and Planned.second.seen == [6]
    assert Planned.first.seeds != Planned.second.seeds
    torch.testing.assert_close(falls.x_adv, x + (falls.by > 0).view(-1, 1, 1, 1) * 0.01)


def test_an_answer_that_is_no_number_is_never_robust() -> None:
    class Lost(Linear):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return torch.where(torch.arange(len(x)).view(-1, 1) % 2 == 0, logits, torch.nan)

    x, y = torch.rand(6, 3, 2, 2), torch.zeros(6, dtype=torch.long)
    falls = AutoAttack(ThreatModel(0), "fast")(Lost(4).eval(), x, y)
    assert (falls.by[1::2] == NATURAL).all()


@pytest.mark.parametrize(
    ("version", "classes", "label"),
    [
        ("standard", 10, "AA (standard)"),
        ("standard", 257, "AA (standard)"),
        ("standard", 5, "AA-adapted (K=5)"),
        ("fast", 10, "AA-fast: apgd-ce and apgd-t, an upper bound"),
        ("fast", 2, "AA-fast-adapted (K=2): apgd-ce and apgd-t, an upper bound"),
    ],
)
def test_a_result_is_called_what_it_is(version: ensemble.Version, classes: int, label: str) -> None:
    assert AutoAttack(THREAT, version).label(classes) == label


def test_the_standard_version_has_the_published_budgets() -> None:
    parts = {name: vars(part) for name, part in AutoAttack(THREAT).parts().items()}
    assert list(parts) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert (parts["apgd-ce"]["loss"], parts["apgd-ce"]["steps"], parts["apgd-ce"]["restarts"]) == ("ce", 100, 1)
    assert (parts["apgd-t"]["steps"], parts["apgd-t"]["targets"], parts["apgd-t"]["restarts"]) == (100, 9, 1)
    assert (parts["fab-t"]["steps"], parts["fab-t"]["targets"], parts["fab-t"]["restarts"]) == (100, 9, 1)
    assert (parts["square"]["queries"], parts["square"]["restarts"]) == (5000, 1)


class Short(AutoAttack):
    """All four parts, with the budgets of a test."""

    def parts(self) -> dict[str, Part]:
        t = self.threat
        return {
            "apgd-ce": APGD(t, steps=2),
            "apgd-t": APGDT(t, steps=2),
            "fab-t": FABT(t, steps=5),
            "square": Square(t, 5),
        }


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_all_four_parts_run_with_and_without_gradients_switched_on(classes: int) -> None:
    model = Linear(classes).eval()
    x = 0.4 + 0.2 * torch.rand(20, 3, 2, 2)
    y = model(x).argmax(dim=1)
    distance = model.distance(x, y, "Linf")
    attack = Short(ThreatModel(float(distance.detach().median()) + 1e-5))
    told: list[str] = []
    on = attack(model, x, y, on_part=lambda part, left: told.append(part))
    with torch.no_grad():
        off = attack(model, x, y)
    assert told == list(attack.parts()) and torch.equal(on.by, off.by) and torch.equal(on.x_adv, off.x_adv)
    assert ((on.by == STANDING) >= (distance > attack.threat.radius)).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(InputError, match="rand"):
        AutoAttack(THREAT, "rand")  # type: ignore[arg-type]
