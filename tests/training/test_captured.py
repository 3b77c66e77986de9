"""Attack steps that a GPU replays: the same images as step by step, with the tensors as they are at the time."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from autolora.attacks import PGD
from autolora.models import RobustModel, evaluating
from autolora.models.folding import Folding
from autolora.models.robust import Architecture, Normalize
from autolora.threat import ThreatModel
from autolora.training import captured
from autolora.training.captured import CapturedSteps, Step
from autolora.training.forms import forms_for


class Replay:
    """What a CUDA graph does, without one: the same step on the same memory, whatever it holds by then."""

    def __init__(self, step: Step, images: tuple[Tensor, Tensor, Tensor]) -> None:
        self.step, self.images, self.replays = step, images, 0

    def replay(self) -> None:
        self.replays += 1
        self.images[0].copy_(self.step(*self.images))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Replay]:
    graphs: list[Replay] = []

    def record(step: Step, images: tuple[Tensor, Tensor, Tensor], addresses: tuple[int, ...]) -> captured._Recorded:
        x_adv, x, target = (tensor.clone() for tensor in images)
        graphs.append(Replay(step, (x_adv, x, target)))
        return captured._Recorded(graphs[-1], x_adv, x, target, addresses)  # type: ignore[arg-type]

    monkeypatch.setattr(captured, "_record", record)
    return graphs


def images(count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    return torch.rand(count, 3, 4, 4), torch.rand(count, 3, 4, 4), torch.arange(count)


def test_one_recording_serves_other_images_and_weights_that_changed_in_place(recorded: list[Replay]) -> None:
    steps, weight = CapturedSteps(), torch.tensor(2.0)

    def step(x_adv: Tensor, x: Tensor, target: Tensor) -> Tensor:
        return weight * x_adv + x + target.view(-1, 1, 1, 1)

    for value in (2.0, 3.0):
        weight.fill_(value)
        x_adv, x, target = images()
        y = target.view(-1, 1, 1, 1)
        found = steps.climb(step, "a", [weight], (x_adv, x, target), 2)
        torch.testing.assert_close(found, value * (value * x_adv + x + y) + x + y)
        assert found.data_ptr() != recorded[0].images[0].data_ptr(), "the next replay would change it"
    assert [graph.replays for graph in recorded] == [4]


@pytest.mark.parametrize("wrong", [0.1, float("nan")])
def test_a_replay_that_gives_other_images_is_not_used(
    recorded: list[Replay], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: float
) -> None:
    monkeypatch.setattr(Replay, "replay", lambda graph: graph.images[0].add_(wrong))
    steps = CapturedSteps()
    with caplog.at_level(logging.INFO, logger="autolora"):
        for _ in range(2):
            x_adv, x, target = images()
            found = steps.climb(lambda x_adv, x, target: x_adv / 2, "a", [], (x_adv, x, target), 2)
            torch.testing.assert_close(found, x_adv / 4)
    assert len(caplog.records) == len(recorded) == 1


def test_what_moved_or_differs_is_recorded_anew_and_only_so_many(recorded: list[Replay]) -> None:
    steps, weight = CapturedSteps(), torch.tensor(2.0)

    def step(x_adv: Tensor, x: Tensor, target: Tensor) -> Tensor:
        return weight * x_adv

    steps.climb(step, "a", [weight], images(), 1)
    weight = torch.tensor(3.0)  # elsewhere: a replay would read what is not there any more
    for _ in range(2):
        x_adv, x, target = images()
        torch.testing.assert_close(steps.climb(step, "a", [weight], (x_adv, x, target), 1), 3 * x_adv)
    assert len(recorded) == 2
    steps.climb(step, "b", [weight], images(), 1)
    steps.climb(step, "b", [weight], images(3), 1)
    assert len(recorded) == 4
    for count in range(4, 10):
        x_adv, x, target = images(count)
        torch.testing.assert_close(steps.climb(step, "b", [weight], (x_adv, x, target), 1), 3 * x_adv)
    assert len(recorded) == 1 + captured.MOST


def test_what_cannot_be_recorded_runs_step_by_step_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*arguments: object) -> captured._Recorded:
        raise RuntimeError("operation not permitted when stream is capturing\nand a page about it")

    monkeypatch.setattr(captured, "_record", refused)
    steps = CapturedSteps()
    with caplog.at_level(logging.INFO, logger="autolora"):
        for _ in range(2):
            x_adv, x, target = images()
            found = steps.climb(lambda x_adv, x, target: x_adv / 2, "a", [], (x_adv, x, target), 3)
            torch.testing.assert_close(found, x_adv / 8)
    (record,) = caplog.records
    assert "step by step: operation not permitted when stream is capturing" in record.getMessage()
    assert "page" not in record.getMessage()


def test_memory_is_given_back_once_and_nothing_is_recorded_after(recorded: list[Replay]) -> None:
    steps = CapturedSteps()
    assert not CapturedSteps().release(), "nothing was held, so giving it back cannot help"
    steps.climb(lambda x_adv, x, target: x_adv, "a", [], images(), 1)
    assert steps.release() and not steps.release()
    steps.climb(lambda x_adv, x, target: x_adv, "a", [], images(), 1)
    assert len(recorded) == 1


def small() -> RobustModel:
    layers = [nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 1)]  # the last has no norm
    backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return RobustModel(Normalize((0.5,) * 3, (0.2,) * 3), backbone, nn.Linear(6, 3), Architecture("n", "fc", (3, 8, 8)))


def changed(model: RobustModel) -> None:
    """As an optimizer does, in place."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *(b for b in model.backbone.buffers() if b.is_floating_point())]:
            tensor.mul_(1 + 0.5 * torch.rand_like(tensor))


def test_a_folded_network_in_place_keeps_its_addresses_and_follows_the_weights() -> None:
    model, x = small().eval(), torch.rand(2, 3, 8, 8)
    folding = Folding(model.backbone, in_place=True)
    first = {name: tensor.data_ptr() for name, tensor in folding.network(model.backbone).tensors.items()}
    own = {parameter.data_ptr() for parameter in model.parameters()}
    assert own.isdisjoint(first.values()), "copying the next weights there would change the model"
    changed(model)
    network = folding.network(model.backbone)
    assert {name: tensor.data_ptr() for name, tensor in network.tensors.items()} == first
    torch.testing.assert_close(network(x), model.backbone(x), rtol=1e-4, atol=1e-5)


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield torch.device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("low", [False, True])
def test_on_a_gpu_the_replayed_attack_is_the_plain_one(cuda: torch.device, norm: str, low: bool) -> None:
    model = small().to(cuda)
    forms = forms_for(model, "attack", cuda, 0)
    folding = Folding(model.backbone, in_place=True)
    attack = PGD(ThreatModel("8/255" if norm == "Linf" else "0.5", norm), 5, 0.01, "natural")  # type: ignore[arg-type]
    for _ in range(3):
        x, y = torch.rand(6, 3, 8, 8, device=cuda), torch.arange(6, device=cuda) % 3
        with evaluating(model), torch.autocast("cuda", torch.bfloat16, enabled=low):
            network = folding.network(model.backbone)
            with model.running(network):
                expected = attack(model, x, y)
            with forms.searching(network, 1):
                found = attack(model, x, y)
        # a sign may differ where a slope is next to zero, since kernels may add in another order
        assert float(((found - expected).abs() > 1e-4).float().mean()) < 0.02
        changed(model)
    assert forms.captured is not None and len(forms.captured._recorded) == 1
