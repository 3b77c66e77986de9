"""Divide images so that every part has the same mix of classes, determined by a seed.

The random numbers come from a generator that is passed in, never from torch's global one: how a data set is split must
not depend on what was drawn before, nor change what is drawn after.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

PAPER_VALIDATION = 0.05
"""AutoLoRa validates on 5 % of the training images."""

ENOUGH_VALIDATION = 625
"""With this many validation images the standard error of an accuracy, at most 0.5 / sqrt(n), is 2 points."""

LARGEST_VALIDATION = 0.2
"""What small data give at most."""


def allocate(sizes: Sequence[int], total: int) -> list[int]:
    """``total`` divided in proportion to ``sizes``, to whole numbers, by largest remainders.

    Each share is the exact one rounded up or down, and they sum to ``total``.
    """
    whole = sum(sizes)
    shares = [total * size // whole for size in sizes]
    remainders = [total * size % whole for size in sizes]
    first = sorted(range(len(sizes)), key=lambda c: -remainders[c])  # stable: ties go to the first class
    for c in first[: total - sum(shares)]:
        shares[c] += 1
    return shares


def draw(labels: Tensor, counts: Sequence[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw ``counts[c]`` of the images of each class c.

    For one state of the generator the draw of a smaller count is part of the draw of a larger one.

    Returns:
        The positions in ``labels`` (N,) that were drawn and those that were not, each ascending.
    """
    drawn = torch.zeros(len(labels), dtype=torch.bool)
    for c, count in enumerate(counts):
        members = (labels == c).nonzero().flatten()
        drawn[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return drawn.nonzero().flatten(), (~drawn).nonzero().flatten()


def validation_size(count: int) -> int:
    """How many of ``count`` training images to validate on.

    The paper's 5 % where that is enough for a standard error of 2 points; of fewer images as many as that takes, but no
    more than 20 %: a learning rate that is halved on noisier scores is halved by coin.
    """
    return max(share(count, PAPER_VALIDATION), min(ENOUGH_VALIDATION, share(count, LARGEST_VALIDATION)))


def share(count: int, fraction: float) -> int:
    """``fraction`` of ``count``, to the nearest whole number."""
    return math.floor(count * fraction + 0.5)


def standard_error(count: int) -> float:
    """Return the largest standard error of an accuracy measured on ``count`` images: 0.5 / sqrt(n), as a fraction."""
    return 0.5 / math.sqrt(count)
