"""Who is attacked: fast ways to search for adversarial images, and the model whose verdict counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autolora.attacks.model import Forward, wrong


@dataclass(frozen=True)
class Victim:
    """A model under attack.

    A search may run in reduced precision, or on a form of the model that is faster. What it finds counts only if the
    model itself falls for it, in full precision.

    Args:
        model: Images (N, C, H, W) in [0, 1] to logits (N, K); its verdict counts.
        search: The same function, cheaper, and equal but for rounding in float32; by default the model itself.
        slope: The same function in low precision, for attacks that follow its gradient; by default ``search``. Attacks
            that live on comparing logits (Square, FAB) would be blind to small differences on it.
        most: Images that it may be shown at once, for searches that could take several targets together.
    """

    model: Forward
    search: Forward | None = None
    slope: Forward | None = None
    most: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) that a search compares."""
        return (self.search or self.model)(x)

    def climbed(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) whose gradient a search follows."""
        return (self.slope or self.search or self.model)(x)

    @property
    def indirect(self) -> bool:
        """Say whether a search may take an image for right that the model gets wrong, or the other way round."""
        return self.search is not None or self.slope is not None

    @torch.no_grad()
    def fallen(self, x: Tensor, y: Tensor, logits: Tensor) -> Tensor:
        """Say which images (N,) the model gets wrong; logits that are not finite are wrong.

        Args:
            x: Images (N, C, H, W) in [0, 1].
            y: Labels (N,).
            logits: What the search saw for these images; only what it takes for fallen is looked at again.
        """
        fallen = wrong(logits, y)
        if self.indirect and bool(fallen.any()):
            fallen[fallen.clone()] = wrong(self.model(x[fallen]), y[fallen])
        return fallen
