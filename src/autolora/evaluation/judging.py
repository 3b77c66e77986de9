"""Judge images under attack, shard by shard: worst case over the parts of an attack, with a verdict for every image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from autolora.attacks import PGD
from autolora.attacks.autoattack.ensemble import NATURAL, STANDING, Falls, Part
from autolora.attacks.model import wrong
from autolora.attacks.victim import Victim
from autolora.evaluation.full_precision import full_precision
from autolora.evaluation.shards import Shard, Shards
from autolora.evaluation.statistics import Score

Fetch = Callable[[Sequence[int]], tuple[Tensor, Tensor]]  # positions to images (N, C, H, W) in [0, 1] and labels (N,)
OnPart = Callable[[str, int], None]  # a part of the attack that begins, and how many images of the shard are left
OnShard = Callable[[Shard], None]


class Assault(Protocol):
    """An attack as a whole: one part, or several of which an image has to withstand all. AutoAttack is one."""

    def parts(self) -> dict[str, Part]:
        """Return its parts by name, in order."""

    def label(self, classes: int) -> str:
        """Return what a result may be called for a number of classes."""

    def __call__(self, model: Victim, x: Tensor, y: Tensor, *, seed: int = 0, on_part: OnPart) -> Falls:
        """Attack a batch."""


@dataclass(frozen=True)
class Alone:
    """Projected gradient descent as an attack of one part: its last iterate decides, as in the papers.

    Args:
        name: What it is called, such as ``pgd-20``.
        pgd: The attack.
    """

    name: str
    pgd: PGD

    def parts(self) -> dict[str, Part]:
        """Return the attack by its name."""
        return {self.name: self._part}

    def label(self, classes: int) -> str:
        """Return the name: PGD is the same for any number of classes."""
        return self.name

    def __call__(self, model: Victim, x: Tensor, y: Tensor, *, seed: int = 0, on_part: OnPart) -> Falls:
        """Attack the images that are right without an attack."""
        found, by = x.clone(), torch.full_like(y, STANDING)
        with torch.no_grad():
            by[wrong(model.model(x), y)] = NATURAL
        left = (by == STANDING).nonzero().flatten()
        on_part(self.name, len(left))
        if len(left):
            x_adv, fallen = self._part(model, x[left], y[left], torch.Generator().manual_seed(seed))
            found[left[fallen]], by[left[fallen]] = x_adv[fallen], 1
        return Falls(found, by)

    def _part(
        self, victim: Victim, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(generator.initial_seed() if generator is not None else 0)
            x_adv = self.pgd(victim, x, y)
        with torch.no_grad():
            return x_adv, wrong(victim.model(x_adv), y)


@full_precision()
def judge(
    victim: Victim,
    fetch: Fetch,
    assault: Assault,
    shards: Shards,
    *,
    seed: int = 0,
    rank: int = 0,
    processes: int = 1,
    on_part: OnPart = lambda part, left: None,
    on_shard: OnShard = lambda shard: None,
) -> None:
    """Judge this process's share of the shards that are missing, and write each one down as soon as it is known.

    float32 is float32 meanwhile, for searches too that compare logits; see :func:`full_precision`.

    Args:
        victim: The model, in evaluation mode.
        fetch: Gives the images.
        assault: The attack.
        shards: Where the verdicts go; already open.
        seed: Of the attack; every shard derives its own.
        rank: Number of this process.
        processes: How many share the work.
        on_part: Told when a part of the attack begins on a shard.
        on_shard: Told of every shard that is done.
    """
    for number in shards.missing(rank, processes):
        x, y = fetch(shards.rows(number))
        with torch.no_grad():
            predicted = victim.model(x).argmax(dim=1)
        falls = assault(victim, x, y, seed=1_000_003 * seed + number, on_part=on_part)
        shard = Shard(y, predicted, falls.by, falls.x_adv[falls.by > NATURAL])
        shards.write(number, shard)
        on_shard(shard)


def standing(shard: Shard, part: int | None = None) -> Tensor:
    """Say which images (N,) still stand after a part (NATURAL: without an attack; None: after all of them)."""
    if part is None:
        return shard.by == STANDING
    return (shard.by == STANDING) | (shard.by > part)


def score(shard: Shard, part: int | None = None) -> Score:
    """Count the images that still stand after a part; see :func:`standing`."""
    return Score(int(standing(shard, part).sum()), len(shard.by))
