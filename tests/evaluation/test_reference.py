"""The reference package as an engine: its own verdicts, image by image, but none that our rules forbid."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from autolora.attacks.autoattack.ensemble import NATURAL, STANDING, AutoAttack, Version
from autolora.attacks.autoattack.reference import ReferenceAutoAttack
from autolora.attacks.model import wrong
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.experiments.evaluation import Panel, Questions, evaluate
from autolora.threat import Norm, Radius, ThreatModel

CLASSES = 10


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, CLASSES)).eval()


def images(net: nn.Module, count: int) -> tuple[Tensor, Tensor]:
    """Images of which the network is right on all but every fifth."""
    x = torch.rand(count, 3, 8, 8)
    with torch.no_grad():
        return x, (net(x).argmax(dim=1) + (torch.arange(count) % 5 == 0)) % CLASSES


@pytest.mark.parametrize(
    ("version", "eps", "norm", "parts"),
    [
        pytest.param(*("standard", "3/255", "Linf", ["apgd-ce", "apgd-t", "fab-t", "square"]), marks=pytest.mark.slow),
        ("fast", 0.07, "L2", ["apgd-ce", "apgd-t"]),
    ],
)
def test_the_verdicts_are_the_packages_own(version: Version, eps: Radius, norm: Norm, parts: list[str]) -> None:
    package = pytest.importorskip("pyautoattack")
    net = network()
    x, y = images(net, 15)
    threat = ThreatModel(eps, norm)
    told: list[tuple[str, int]] = []
    attack = ReferenceAutoAttack(threat, version)
    falls = attack(net, x, y, seed=3, on_part=lambda part, left: told.append((part, left)))

    left, by = ~wrong(net(x), y), torch.where(wrong(net(x), y), NATURAL, STANDING)
    for number, name in enumerate(parts, start=1):
        assert told[number - 1] == (name, int(left.sum()))
        theirs = package.AutoAttack(net, norm=norm, eps=threat.radius, seed=3000 + number)
        theirs.attacks_to_run = [name]
        x_adv, _ = theirs.run_standard_evaluation(x[left], y[left], batch_size=15)
        fooled = net(x_adv).argmax(dim=1) != y[left]
        fell = left.nonzero().squeeze(1)[fooled]
        torch.testing.assert_close(falls.x_adv[fell], x_adv[fooled])  # which another seed would not give
        by[fell], left[fell] = number, False
    assert torch.equal(falls.by, by)
    assert {NATURAL, STANDING, 1} <= set(by.tolist())  # of several kinds, else this shows little


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_what_an_image_fell_to_lies_in_the_threat_model_and_nothing_else_is_touched(norm: Norm) -> None:
    pytest.importorskip("pyautoattack")
    net = network().to(memory_format=torch.channels_last)
    x, y = images(net, 10)
    threat = ThreatModel("6/255" if norm == "Linf" else 0.2, norm)
    before, tracing = torch.get_rng_state(), sys.gettrace()
    falls = ReferenceAutoAttack(threat, "fast")(Victim(net), x, y)
    assert torch.equal(torch.get_rng_state(), before) and sys.gettrace() is tracing
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    fell = falls.by > NATURAL
    assert fell.any() and wrong(net(falls.x_adv[fell]), y[fell]).all()
    assert torch.equal(falls.x_adv[~fell], x[~fell])
    torch.testing.assert_close(threat.project(falls.x_adv, x), falls.x_adv, rtol=0, atol=1e-7)


def test_fab_leaves_no_gradient_in_the_parameters() -> None:
    pytest.importorskip("pyautoattack")
    net = network()
    x, y = images(net, 4)
    _, fallen = ReferenceAutoAttack(ThreatModel("64/255")).parts()["fab-t"](Victim(net), x, y)
    assert fallen.all()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_an_answer_that_is_no_number_is_never_robust() -> None:
    package = pytest.importorskip("pyautoattack")

    def lost(x: Tensor) -> Tensor:
        return torch.full((len(x), CLASSES), torch.nan)

    x, y = torch.rand(3, 3, 8, 8), torch.zeros(3, dtype=torch.long)
    theirs = package.AutoAttack(lost, eps=0.0, seed=0)
    assert theirs.clean_accuracy(x, y) == 1.0  # why our own verdict counts
    assert (ReferenceAutoAttack(ThreatModel(0), "fast")(lost, x, y).by == NATURAL).all()


def test_a_masked_gradient_shows_in_the_flags_as_with_our_own_square(tmp_path: Path) -> None:
    pytest.importorskip("pyautoattack")

    class Steps(nn.Module):
        """Rounds its input, so that no gradient comes back; half a grey level moves it."""

        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.net((12 * x).round() / 12)

    model = Steps().eval()
    x, y = images(model, 5)
    panel = Panel(lambda rows: (x[list(rows)], y[list(rows)]), range(5), CLASSES, 5, {})
    questions = Questions(radii=("12/255",), engine="reference")
    score = evaluate(Victim(model), panel, questions, tmp_path, progress=False)["scores"]["autoattack"]
    assert {"zero-gradients", "black-box-stronger"} <= {flag["name"] for flag in score["flags"]}
    assert score["after"]["square"] < score["after"]["fab-t"]


def test_a_result_says_whose_it_is_and_is_identified_by_it() -> None:
    package = pytest.importorskip("pyautoattack")
    threat = ThreatModel("8/255")
    for version in get_args(Version):
        label = ReferenceAutoAttack(threat, version).label(10)
        assert f"pyautoattack {package.__version__}" in label
        assert label.startswith(AutoAttack(threat, version).label(10))
    assert "upper bound" in label
    attack = ReferenceAutoAttack(threat)
    names = {repr(each) for each in (attack, AutoAttack(threat), ReferenceAutoAttack(threat, release="9.9"))}
    assert len(names) == 3 and package.__version__ in repr(attack)


def test_fewer_than_ten_classes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    pytest.importorskip("pyautoattack")
    x, y = torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)
    panel = Panel(lambda rows: (x[list(rows)], y[list(rows)]), range(4), 9, 4, {})
    with pytest.raises(InputError, match=r"nine wrong classes.* 9 classes.*--engine own"):
        evaluate(Victim(network()), panel, Questions(engine="reference"), tmp_path / "e", progress=False)
    assert not (tmp_path / "e").exists()


def test_pgd_is_not_called_the_references() -> None:
    with pytest.raises(InputError, match="engine=reference has no pgd-20"):
        Questions(engine="reference").assault("pgd-20", ThreatModel("8/255"))


def test_a_missing_package_is_asked_for_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(InputError, match=r"pip install '\.\[reference\]'") as caught:
        ReferenceAutoAttack(ThreatModel("8/255"))
    assert "\n" not in str(caught.value)
