"""Verdicts: one per image, in the order of the data, and never right where a model does not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from autolora.attacks import PGD
from autolora.evaluation import accuracy, verdicts
from autolora.threat import ThreatModel


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def answering(logits: Tensor) -> Callable[[Tensor], Tensor]:
    """A model that looks its logits up: the first pixel of image i is i."""
    return lambda x: logits[x[:, 0, 0, 0].long()]


def numbered(count: int) -> Tensor:
    return torch.arange(count).float().view(count, 1, 1, 1)


def in_batches(x: Tensor, y: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(torch.split(x, size), torch.split(y, size), strict=True))


@pytest.mark.parametrize("size", [1, 4, 10, 64])
def test_verdicts_follow_the_order_of_the_data(size: int) -> None:
    logits, y = torch.randn(10, 3), torch.randint(3, (10,))
    found = verdicts(answering(logits), in_batches(numbered(10), y, size))
    predicted = [max(range(3), key=row.__getitem__) for row in logits.tolist()]
    assert found.label.tolist() == y.tolist()
    assert found.predicted.tolist() == predicted
    assert found.correct.tolist() == [a == b for a, b in zip(predicted, y.tolist(), strict=True)]
    assert (found.score.correct, found.score.total) == (sum(found.correct.tolist()), 10)


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize(
    "broken",
    [
        [torch.nan, torch.nan, torch.nan],
        [torch.nan, 0.0, 0.0],
        [0.0, torch.nan, 0.0],
        [torch.inf, 0.0, 0.0],
        [0.0, 0.0, torch.inf],
        [5.0, 0.0, -torch.inf],
        [torch.inf, torch.inf, torch.inf],
    ],
    ids=str,
)
def test_logits_that_are_not_finite_are_never_right(broken: list[float], label: int) -> None:
    sound = [0.0, 0.0, 0.0]
    sound[label] = 1.0
    found = verdicts(answering(torch.tensor([sound, broken, sound])), [(numbered(3), torch.full((3,), label))])
    assert found.correct.tolist() == [True, False, True]


def net() -> nn.Module:
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 9, 3))
    return nn.Sequential(*layers).double().eval()


@pytest.mark.parametrize("threat", [ThreatModel("8/255"), ThreatModel("0.5", "L2")], ids=str)
def test_a_score_under_attack_is_the_one_of_every_image_attacked_alone(threat: ThreatModel) -> None:
    model, x = net(), torch.rand(30, 3, 5, 5, dtype=torch.double)
    y = model(x).argmax(dim=1)
    pgd = PGD(threat, steps=4, step_size=threat.radius / 4, start="natural")
    alone = [int(model(pgd(model, a[None], b[None])).argmax()) for a, b in zip(x, y, strict=True)]
    found = verdicts(model, in_batches(x, y, 7), pgd)
    assert found.predicted.tolist() == alone
    assert 0 < found.score.correct < 30  # or the attack shows nothing
    assert accuracy(model, in_batches(x, y, 7), pgd) == found.score
    assert accuracy(model, in_batches(x, y, 7)).accuracy == 1


def test_no_graph_is_made_and_verdicts_are_plain() -> None:
    model, x = net(), torch.rand(4, 3, 5, 5, dtype=torch.double)
    graphs = []
    model.register_forward_hook(lambda module, arguments, logits: graphs.append(logits.requires_grad))
    found = verdicts(model, [(x, torch.zeros(4, dtype=torch.long))])
    assert graphs == [False] and torch.is_grad_enabled()
    assert (found.label.dtype, found.predicted.dtype, found.correct.dtype) == (torch.int64, torch.int64, torch.bool)


def test_the_attack_searches_in_low_precision_and_the_verdict_is_taken_in_full() -> None:
    model, x = net().float(), torch.rand(4, 3, 5, 5)
    seen: list[torch.dtype] = []
    model.register_forward_hook(lambda module, arguments, logits: seen.append(logits.dtype))
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    verdicts(model, [(x, torch.zeros(4, dtype=torch.long))], PGD(ThreatModel("8/255"), steps=2), searching=autocast)
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_no_images_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        accuracy(net(), [])
