"""What is attacked: a function from images to logits, and what counts as its answer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Forward = Callable[[Tensor], Tensor]  # images (N, C, H, W) in [0, 1] -> logits (N, K): what is attacked and measured
Objective = Callable[[Tensor, Tensor], Tensor]  # logits (N, K), target -> loss per image (N,), or one loss


def wrong(logits: Tensor, y: Tensor) -> Tensor:
    """Say for which images (N,) the logits (N, K) are not the label's answer.

    Logits that are not finite are none: argmax of NaN is class 0, and a model that answers nothing must not count as
    right on that class, nor as robust.
    """
    return (logits.argmax(dim=1) != y) | ~logits.isfinite().all(dim=1)
