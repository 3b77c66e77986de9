"""Several targets at once: the same targets, the same verdicts and images as one after the other, in fewer passes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from autolora.attacks.autoattack.apgd import APGD, APGDT
from autolora.attacks.autoattack.ensemble import AutoAttack, Part
from autolora.attacks.autoattack.fab import FABT
from autolora.attacks.autoattack.rounds import Siblings, rounds
from autolora.attacks.victim import Victim
from autolora.threat import ThreatModel


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_every_image_that_stands_is_tried_with_every_target_in_order_within_the_batch() -> None:
    targets = torch.arange(6 * 5).view(6, 5)
    fallen = torch.tensor([False, True, False, False, True, False])
    tried: dict[int, list[int]] = {row: [] for row in range(6)}
    for number, aim in enumerate(rounds(targets, fallen, most=9)):
        assert len(aim.image) <= 9
        for rows in aim.parts():
            assert not fallen[aim.image[rows]].any()
            for image, target in zip(aim.image[rows].tolist(), aim.target[rows].tolist(), strict=True):
                tried[image].append(target)
        if number == 0:
            fallen[3] = True
    assert tried[0] == [0, 1, 2, 3, 4] and tried[5] == [25, 26, 27, 28, 29]
    assert tried[3] == [15, 16], "an image that has fallen is not tried again"
    assert tried[1] == tried[4] == []


@pytest.mark.parametrize("most", [0, 1, 4])
def test_a_round_has_one_target_at_least(most: int) -> None:
    sizes = [len(aim.image) for aim in rounds(torch.zeros(7, 3), torch.zeros(7, dtype=torch.bool), most)]
    assert sizes == [7, 7, 7]


def test_a_fall_ends_the_later_rows_of_its_image_and_no_others() -> None:
    siblings = Siblings(torch.tensor([4, 2, 4, 2, 4, 2]))
    assert siblings.of_use(torch.arange(6), torch.tensor([0, 0, 1, 0, 0, 0]).bool()).tolist() == [1, 1, 0, 1, 0, 1]
    # the first row may fall later, and ends the rest
    assert siblings.of_use(torch.tensor([0, 1, 3, 5]), torch.tensor([1, 0, 0, 1]).bool()).tolist() == [0, 1, 1, 0]


def network() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 16, 7))
    return net.double().eval().requires_grad_(False)


class Counted:
    """Counts its calls."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.calls, self.most = net, 0, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls, self.most = self.calls + 1, max(self.most, len(x))
        return self.net(x)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ["apgd-t", "apgd-ce", "fab-t", "fab-t, restarts"])
def test_what_is_found_does_not_hang_on_how_many_targets_are_tried_at_once(name: str, norm: str) -> None:
    net, x = network(), torch.rand(12, 3, 6, 6, dtype=torch.float64)
    y = net(x).argmax(dim=1)
    threat = ThreatModel("6/255", "Linf") if norm == "Linf" else ThreatModel(0.2, "L2")
    parts: dict[str, Part] = {
        "apgd-t": APGDT(threat, steps=15),
        "apgd-ce": APGD(threat, steps=15, restarts=3),
        "fab-t": FABT(threat, steps=15),
        "fab-t, restarts": FABT(threat, steps=6, targets=3, restarts=2),
    }
    part = parts[name]

    def attacked(most: int) -> tuple[Tensor, Tensor, Counted]:
        counted = Counted(net)
        x_adv, fallen = part(Victim(counted, most=most), x, y, torch.Generator().manual_seed(1))
        return x_adv, fallen, counted

    one, several = attacked(0), attacked(60)
    assert 0 < one[1].sum() < 12, "some fall, some stand"
    assert torch.equal(one[1], several[1])
    torch.testing.assert_close(one[0], several[0], rtol=0, atol=1e-9)
    assert several[2].calls < 0.6 * one[2].calls and several[2].most <= 60


def test_the_ensemble_fills_the_batch_that_it_was_given_and_asks_for_no_more() -> None:
    net = network()
    x = torch.rand(12, 3, 6, 6, dtype=torch.float64)
    y, sizes = net(x).argmax(dim=1), []

    def seen(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return net(images)

    began = []
    falls = AutoAttack(ThreatModel("6/255"), "fast")(
        Victim(seen), x, y, on_part=lambda part, left: began.append((left, len(sizes)))
    )
    (_, _), (left, calls) = began
    assert 0 < left <= 6, "the second part begins with few images"
    assert (falls.by == -1).any() and max(sizes) <= 12
    assert max(sizes[calls:]) > left, "so several targets go together"
