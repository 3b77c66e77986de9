"""Accuracies as counts, with the uncertainty that a finite set of images leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class Score:
    """How many images of a set were classified right.

    Args:
        correct: Images still right.
        total: Images looked at, at least one.
    """

    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """Return the share of images classified right, in [0, 1]."""
        return self.correct / self.total

    @property
    def ci95(self) -> tuple[float, float]:
        """Return the 95 % interval of Wilson (1927) for the accuracy on unseen images of the same kind."""
        interval = binomtest(self.correct, self.total).proportion_ci(0.95, method="wilson")
        return float(interval.low), float(interval.high)


def standard_error(total: int, accuracy: float = 0.5) -> float:
    """Return the standard error of an accuracy on ``total`` images, in [0, 0.5]; by default the largest possible."""
    return math.sqrt(accuracy * (1 - accuracy) / total)
