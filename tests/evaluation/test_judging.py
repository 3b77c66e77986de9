"""Judging: a kill anywhere and any number of processes give the same verdicts; the worst case over the parts counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autolora.attacks import PGD
from autolora.attacks.autoattack.apgd import APGD, APGDT
from autolora.attacks.autoattack.ensemble import NATURAL, STANDING, AutoAttack, Falls, Part
from autolora.attacks.model import wrong
from autolora.attacks.victim import Victim
from autolora.evaluation.judging import Alone, OnPart, judge, score, standing
from autolora.evaluation.shards import Shard, Shards
from autolora.threat import ThreatModel

THREAT = ThreatModel("16/255")


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def network() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4))
    return net.eval().requires_grad_(False)


class Images:
    """Images that know their number, of which the network is right on four in five."""

    def __init__(self, net: nn.Module, count: int) -> None:
        self.x = torch.rand(count, 3, 6, 6)
        self.y = (net(self.x).argmax(dim=1) + (torch.arange(count) % 5 == 0)) % 4
        self.asked: list[list[int]] = []

    def fetch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        self.asked.append(list(positions))
        return self.x[list(positions)], self.y[list(positions)]


class Fast(AutoAttack):
    """Both parts of the fast version, with the steps of a test."""

    def parts(self) -> dict[str, Part]:
        return {"apgd-ce": APGD(self.threat, steps=8), "apgd-t": APGDT(self.threat, steps=8)}


def judged(folder: Path, net: nn.Module, images: Images, processes: int = 1, stop_after: int | None = None) -> Shards:
    shards = Shards(folder, len(images.x), 7)
    shards.open({})
    done: list[Shard] = []

    def stop(shard: Shard) -> None:
        done.append(shard)
        if stop_after is not None and len(done) == stop_after:
            raise KeyboardInterrupt

    for rank in reversed(range(processes)):
        judge(Victim(net), images.fetch, Fast(THREAT, "fast"), shards, rank=rank, processes=processes, on_shard=stop)
    return shards


def same(first: Shard, second: Shard) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_verdicts_are_the_same_in_one_process_in_three_and_after_a_kill(tmp_path: Path) -> None:
    net = network()
    images = Images(net, 40)
    whole = judged(tmp_path / "one", net, images)
    divided = judged(tmp_path / "three", net, images, processes=3)
    with pytest.raises(KeyboardInterrupt):
        judged(tmp_path / "killed", net, images, stop_after=3)
    images.asked.clear()
    torch.rand(17)  # what was drawn in between does not matter
    continued = judged(tmp_path / "killed", net, images)
    assert [rows[0] // 7 for rows in images.asked] == [3, 4, 5]
    for number in range(len(whole)):
        expected = whole.read(number)
        assert expected is not None
        for other in (divided.read(number), continued.read(number)):
            assert other is not None and same(expected, other)
    assert len(set(whole.together().by.tolist())) >= 3  # of several kinds, else this shows little


def test_shards_draw_their_own_random_numbers(tmp_path: Path) -> None:
    seeds: list[int] = []

    class Spy(Alone):
        def __call__(self, model: Victim, x: Tensor, y: Tensor, *, seed: int = 0, on_part: OnPart) -> Falls:
            seeds.append(seed)
            return super().__call__(model, x, y, seed=seed, on_part=on_part)

    net = network()
    images, shards = Images(net, 20), Shards(tmp_path, 20, 7)
    shards.open({})
    judge(Victim(net), images.fetch, Spy("pgd-1", PGD(THREAT, 1)), shards, seed=3)
    assert len(set(seeds)) == 3


def test_what_is_kept_of_an_image_that_fell_is_what_it_fell_to(tmp_path: Path) -> None:
    net = network()
    images = Images(net, 20)
    shards = judged(tmp_path, net, images)
    for number in range(len(shards)):
        shard, rows = shards.read(number), list(shards.rows(number))
        assert shard is not None
        fell = shard.by > NATURAL
        x, y = images.x[rows][fell], images.y[rows][fell]
        assert len(shard.fallen) == int(fell.sum())
        assert wrong(net(shard.fallen), y).all() and not wrong(net(x), y).any()
        assert (shard.fallen - x).abs().max() <= THREAT.radius + 1e-6
        assert torch.equal(shard.predicted, net(images.x[rows]).argmax(dim=1))


def test_pgd_alone_is_the_papers_pgd(tmp_path: Path) -> None:
    net = network()
    images, shards, pgd = Images(net, 20), Shards(tmp_path, 20, 20), PGD(THREAT, 5, start="natural")
    shards.open({})
    judge(Victim(net), images.fetch, Alone("pgd-5", pgd), shards)
    right = net(images.x).argmax(dim=1) == images.y
    still = net(pgd(net, images.x, images.y)).argmax(dim=1) == images.y
    assert torch.equal(standing(shards.together()), right & still)
    assert Alone("pgd-5", pgd).label(10) == "pgd-5"


def test_a_part_leaves_standing_what_it_did_not_fell_and_the_parts_before_it_neither() -> None:
    shard = Shard(torch.zeros(6), torch.zeros(6), torch.tensor([0, 1, 2, 3, STANDING, STANDING]), torch.zeros(0))
    assert standing(shard, NATURAL).tolist() == [False, True, True, True, True, True]
    assert [score(shard, part).correct for part in (NATURAL, 1, 2, 3)] == [5, 4, 3, 2]
    assert score(shard).correct == 2 and score(shard).total == 6
