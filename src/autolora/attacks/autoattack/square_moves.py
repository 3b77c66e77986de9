"""What Square Attack tries next: plain squares in Linf, pairs of pyramids in L2 (Andriushchenko et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Draw = Callable[..., Tensor]  # (*shape) -> for each of n images, uniform numbers in [0, 1): (n, *shape)
Window = tuple[Tensor, Tensor, Tensor, Tensor]  # indices that take a window (n, C, side, side) out of (n, C, H, W)
SMALLEST = 1e-12  # of a length to divide by


class Moves(Protocol):
    """How to begin, and what to try next; both may leave [0, 1], and are projected into S(x) by the attack."""

    def start(self, x: Tensor, draw: Draw) -> Tensor:
        """Return the first images to try, for natural images (n, C, H, W)."""

    def propose(self, x: Tensor, best: Tensor, share: float, draw: Draw) -> Tensor:
        """Return what to try next, in place of the best so far; about ``share`` of the pixels change."""


@dataclass(frozen=True)
class Squares:
    """Each channel of a square goes to one corner of its Linf ball (Algorithm 2)."""

    eps: float

    def start(self, x: Tensor, draw: Draw) -> Tensor:
        """Draw vertical stripes, one pixel wide."""
        return x + self.eps * _signs(draw(x.shape[1], 1, x.shape[3]))

    def propose(self, x: Tensor, best: Tensor, share: float, draw: Draw) -> Tensor:
        """Set a square to x + eps or x - eps, which is a step of 2 eps brought back into the ball."""
        side = max(round(math.sqrt(share * x.shape[2] * x.shape[3])), 1)
        window = _window(x, min(side, *x.shape[2:]), draw(2))
        candidate = best.clone()
        candidate[window] = x[window] + self.eps * _signs(draw(x.shape[1], 1, 1))
        return candidate


@dataclass(frozen=True)
class Pyramids:
    """One window gets a pair of pyramids, and the share of the L2 norm that another window gives up (Algorithm 3)."""

    eps: float

    def start(self, x: Tensor, draw: Draw) -> Tensor:
        """Cover the image with pairs of pyramids, five by five for a square one."""
        channels, height, width = x.shape[1:]
        side = max(min(height, width) // 5, 1)
        down, across = height // side, width // side
        pair = pyramids(side).to(x)
        turned = draw(1, down, 1, across, 1) < 0.5
        tiles = _signs(draw(channels, down, 1, across, 1)) * torch.where(turned, pair.T[:, None], pair[:, None])
        top, left = (height - down * side) // 2, (width - across * side) // 2
        delta = torch.zeros_like(x)
        delta[:, :, top : top + down * side, left : left + across * side] = tiles.reshape(
            len(x), channels, down * side, across * side
        )
        return x + self.eps * delta / _length(delta, (1, 2, 3))

    def propose(self, x: Tensor, best: Tensor, share: float, draw: Draw) -> Tensor:
        """Move norm from the second window into the first, where a new pair is added to what was there."""
        channels = x.shape[1]
        side = min(_odd(math.sqrt(share * x.shape[2] * x.shape[3])), *x.shape[2:])
        first, second = _window(x, side, draw(2)), _window(x, side, draw(2))
        pair = pyramids(side).to(x)
        fresh = _signs(draw(channels, 1, 1)) * torch.where(draw(1, 1, 1) < 0.5, pair.T, pair)
        delta = best - x
        unused = (self.eps**2 - delta.square().sum(dim=(1, 2, 3), keepdim=True)).clamp_min(0)
        # emptied one after the other, so that where the windows overlap nothing counts twice
        old, delta[first] = delta[first], 0
        available = unused / channels + _squares(old) + _squares(delta[second])
        delta[second] = 0
        fresh = fresh + old / _length(old, (2, 3))
        delta[first] = available.sqrt() * fresh / _length(fresh, (2, 3))
        return x + delta


def pyramids(side: int) -> Tensor:
    r"""Return a pair of pyramids (side, side), one upward and one downward, of Euclidean length one (eq. 2 and 3).

    .. math:: \eta^{(h_1, h_2)}_{r, s} = \sum_{k=0}^{M(r, s)} \frac{1}{(n + 1 - k)^2}, \quad
              M(r, s) = n - \max(|r - \lfloor h_1 / 2 \rfloor - 1|, |s - \lfloor h_2 / 2 \rfloor - 1|), \quad
              n = \lfloor h_1 / 2 \rfloor
    """
    half = side // 2
    pair = torch.cat([_pyramid(side, half), -_pyramid(side, side - half)], dim=1)
    return pair / pair.norm()


def _pyramid(rows: int, columns: int) -> Tensor:
    centre = rows // 2
    ring = torch.maximum((torch.arange(rows) - centre).abs()[:, None], (torch.arange(columns) - columns // 2).abs())
    # the sum of the docstring, from its other end: over j = n + 1 - k, from ring + 1 to n + 1
    terms = torch.arange(1.0, centre + 2).pow(-2)
    return terms.flip(0).cumsum(0).flip(0)[ring]


def _window(x: Tensor, side: int, places: Tensor) -> Window:
    """Return the window of each image (n, C, H, W) whose corner is at two uniform numbers (n, 2)."""
    count, channels, height, width = x.shape
    top, left = (places[:, 0] * (height - side + 1)).long(), (places[:, 1] * (width - side + 1)).long()
    steps = torch.arange(side, device=x.device)
    return (
        torch.arange(count, device=x.device).view(-1, 1, 1, 1),
        torch.arange(channels, device=x.device).view(1, -1, 1, 1),
        top.view(-1, 1, 1, 1) + steps.view(-1, 1),
        left.view(-1, 1, 1, 1) + steps,
    )


def _odd(length: float) -> int:
    """Return an odd number near a length, three at least: a pair of pyramids takes three pixels."""
    side = max(round(length), 3)
    return side + 1 - side % 2


def _signs(uniform: Tensor) -> Tensor:
    return 1 - 2 * (uniform < 0.5).to(uniform)


def _squares(windows: Tensor) -> Tensor:
    return windows.square().sum(dim=(2, 3), keepdim=True)


def _length(delta: Tensor, dims: tuple[int, ...]) -> Tensor:
    return delta.square().sum(dim=dims, keepdim=True).sqrt().clamp_min(SMALLEST)
