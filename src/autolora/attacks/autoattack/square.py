"""Square Attack (Andriushchenko et al., 2020): random search with squares, which asks for logits and no gradient."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from autolora.attacks.autoattack.margins import logit_margin
from autolora.attacks.autoattack.square_moves import Draw, Moves, Pyramids, Squares
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.threat import Norm, ThreatModel

# after which of 10,000 queries p is halved; the code that came with the paper, and AutoAttack, have this list
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

MOVES: dict[Norm, Callable[[float], Moves]] = {"Linf": Squares, "L2": Pyramids}


@dataclass(frozen=True)
class Square:
    r"""Change a random square, and keep the change if the label's lead over the best wrong class has shrunk.

    .. math:: L(x') = f_y(x') - \max_{k \ne y} f_k(x')

    Squares cover a share p of the image, which the published schedule shrinks; it is rescaled to the number of
    queries. Each image has squares of its own, and they do not depend on which other images have fallen.

    The defaults are those of AutoAttack's standard version. The attack changes nothing about the model.

    Args:
        threat: The set S(x).
        queries: Forward passes of an image at most, that of x included; an image that has fallen costs no more.
        restarts: Independent runs, of ``queries`` each.
        p_init: The share of the image that the first squares cover, in (0, 1].

    Raises:
        InputError: If a number is out of its range.
    """

    threat: ThreatModel
    queries: int = 5000
    restarts: int = 1
    p_init: float = 0.8

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise InputError(f"queries={self.queries}: the natural image alone takes one; AutoAttack uses 5000")
        if self.restarts < 1:
            raise InputError(f"restarts={self.restarts}: an attack runs at least once")
        if not 0 < self.p_init <= 1:
            raise InputError(f"p_init={self.p_init}: squares cover a share of the image, above 0 and up to 1")

    @torch.no_grad()
    def __call__(
        self, victim: Victim, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attack a batch.

        Args:
            victim: Who is attacked; it may well have no gradient.
            x: Natural images (N, C, H, W) in [0, 1], in float32.
            y: Labels (N,).
            generator: Source of the squares, on the device of ``x``.

        Returns:
            Images (N, C, H, W) and whether each has fallen (N,): an adversarial image in S(x) where it has, else the
            image in S(x) with the smallest lead found, which may be x.
        """
        logits = victim(x)
        x_adv, best, fallen = x, _lead(logits, y), victim.fallen(x, y, logits)
        for _ in range(self.restarts):
            found, lead, fell = self._search(victim, x, y, fallen, generator)
            better = fell | (lead < best)
            x_adv, best = torch.where(better.view(-1, 1, 1, 1), found, x_adv), torch.where(better, lead, best)
            fallen = fallen | fell
        return x_adv.clone(), fallen

    def share(self, query: int) -> float:
        """Return p, the share of the image that the square of a query (0, 1, ...) covers."""
        return self.p_init / 2 ** bisect_left(HALVINGS, query * 10_000 // self.queries)

    def _search(
        self, victim: Victim, x: Tensor, y: Tensor, skip: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a run finds for all images but ``skip``: images (N, C, H, W), leads (N,), and the fallen (N,)."""
        best, lead, fallen = x.clone(), torch.full(y.shape, torch.inf, device=x.device), torch.zeros_like(skip)
        rows = (~skip).nonzero().squeeze(1)  # the images still attacked

        def draw(*shape: int) -> Tensor:
            # for the whole batch, so that an image's squares do not depend on which others have fallen
            return torch.rand(len(x), *shape, generator=generator, device=x.device, dtype=x.dtype)[rows]

        for query in range(self.queries - 1):
            if not len(rows):
                break
            labels, tried = y[rows], self._next(query, x[rows], best[rows], draw)
            logits = victim(tried)
            fell, leads = victim.fallen(tried, labels, logits), _lead(logits, labels)
            better = fell | (leads < lead[rows])
            best[rows[better]], lead[rows[better]] = tried[better], leads[better]
            fallen[rows] = fell
            rows = rows[~fell]
        return best, lead, fallen

    def _next(self, query: int, x: Tensor, best: Tensor, draw: Draw) -> Tensor:
        moves = MOVES[self.threat.norm](self.threat.radius)
        tried = moves.propose(x, best, self.share(query - 1), draw) if query else moves.start(x, draw)
        return self.threat.project(tried, x)


def _lead(logits: Tensor, y: Tensor) -> Tensor:
    """Lead of the label over the best wrong class (N,); logits that are no numbers do not count as small."""
    return -logit_margin(logits, y).nan_to_num(-torch.inf, torch.inf, -torch.inf)
