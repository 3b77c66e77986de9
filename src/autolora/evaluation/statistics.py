"""Accuracies as counts, with the uncertainty that a finite set of images leaves, and tests of their differences.

Two models that were judged on the same images are compared image by image: only the images that one of them gets right
and the other wrong say which is better. Two methods are compared by their accuracies over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr

LEVEL, POWER = 0.05, 0.8  # of a two-sided test; intervals are of 1 - LEVEL
NODES = 4000  # of a quadrature


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
        interval = stats.binomtest(self.correct, self.total).proportion_ci(0.95, method="wilson")
        return float(interval.low), float(interval.high)

    def as_json(self) -> dict[str, Any]:
        """Return the score as ``result.json`` holds it, unrounded: who shows it rounds, and rounds once."""
        return {"accuracy": self.accuracy, "correct": self.correct, "total": self.total, "ci95": list(self.ci95)}


def standard_error(total: int, accuracy: float = 0.5) -> float:
    """Return the standard error of an accuracy on ``total`` images, in [0, 0.5]; by default the largest possible."""
    return math.sqrt(accuracy * (1 - accuracy) / total)


@dataclass(frozen=True)
class Discordance:
    """On how many of the same images one of two models is right and the other wrong.

    Args:
        only_first: Images that only the first gets right.
        only_second: Images that only the second gets right.
        total: Images that both were judged on, at least one.
    """

    only_first: int
    only_second: int
    total: int

    @classmethod
    def between(cls, first: ArrayLike, second: ArrayLike) -> Discordance:
        """Count where two models differ, by whether each is right, (N,) bool, on the same images in the same order."""
        one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
        return cls(int((one & ~other).sum()), int((other & ~one).sum()), len(one))

    @property
    def difference(self) -> float:
        """Return the accuracy of the first less that of the second, in [-1, 1]."""
        return (self.only_first - self.only_second) / self.total

    @property
    def p(self) -> float:
        r"""Return the exact two-sided p value of McNemar's test (1947).

        If neither model is better, which of them is right on an image where they differ is a fair coin:
        :math:`p = \min(1, 2 P(X \le \min(b, c)))` with X binomial (b + c, 1/2). Without such images p is 1.
        """
        discordant = self.only_first + self.only_second
        return float(stats.binomtest(self.only_first, discordant).pvalue) if discordant else 1.0

    @property
    def ci95(self) -> tuple[float, float]:
        r"""Return the 95 % percentile bootstrap interval of the difference (Efron, 1979), without resampling noise.

        A resample of n images is a sum of n draws of +1, -1 or 0, for an image that only the first, only the second,
        or both or neither get right. The distribution of the sum, which drawing more and more resamples tends to, is
        found whole: it is the Fourier transform of :math:`(p_0 + p_b e^{iw} + p_c e^{-iw})^n`.
        """
        n = self.total
        b, c = self.only_first / n, self.only_second / n
        w = 2 * math.pi * np.arange(2 * n + 1) / (2 * n + 1)
        sums = np.fft.fft((1 - b - c + b * np.exp(1j * w) + c * np.exp(-1j * w)) ** n).real / (2 * n + 1)
        chances = np.roll(sums, n)  # of the differences -n, ..., n
        # the least value with 2.5 % at or below it, and the greatest with 2.5 % at or above it
        low = int(np.argmax(np.cumsum(chances) >= LEVEL / 2)) - n
        high = n - int(np.argmax(np.cumsum(chances[::-1]) >= LEVEL / 2))
        return low / n, high / n

    def detectable(self, level: float = LEVEL) -> float | None:
        r"""Return the difference that McNemar's test at ``level`` would find four times in five, in [0, 1].

        :math:`\delta = (z_{1-\alpha/2} + z_{0.8}) \sqrt{\psi / n}`, the first order of Connor (1987), where
        :math:`\psi` is the share of discordant images as observed, and at least as large as the difference itself.
        None if there are too few images for any difference.
        """
        z = float(stats.norm.ppf(1 - level / 2) + stats.norm.ppf(POWER))
        share = max((self.only_first + self.only_second) / self.total, z**2 / self.total)
        difference = z * math.sqrt(share / self.total)
        return difference if difference <= 1 else None


@dataclass(frozen=True)
class TTest:
    """A difference of two means, and whether it could be chance.

    Args:
        difference: First mean less second.
        standard_error: Its standard error.
        df: Degrees of freedom.
    """

    difference: float
    standard_error: float
    df: float

    @property
    def t(self) -> float:
        """Return the difference in standard errors."""
        return self.difference / self.standard_error

    @property
    def p(self) -> float:
        """Return the two-sided p value."""
        return float(2 * stats.t.sf(abs(self.t), self.df))

    @property
    def ci95(self) -> tuple[float, float]:
        """Return the 95 % interval of the difference."""
        half = float(stats.t.ppf(1 - LEVEL / 2, self.df)) * self.standard_error
        return self.difference - half, self.difference + half

    def detectable(self, level: float = LEVEL) -> float:
        r"""Return the difference that the test at ``level`` would find four times in five, in units of the values.

        :math:`\delta` such that :math:`P(|T| \ge t_{1-level/2}) = 0.8`, where T is a noncentral t of shift
        :math:`\delta / SE`: a normal number over :math:`s = \sqrt{\chi^2_{df} / df}`. The standard error is taken as it
        was found; few values do not tell it well.
        """
        # by quadrature over s: scipy's noncentral t is no number for few degrees of freedom and strict levels
        chances = (np.arange(NODES) + 0.5) / NODES
        bounds = stats.t.ppf(1 - level / 2, self.df) * np.sqrt(stats.chi2.ppf(chances, self.df) / self.df)

        def excess(shift: float) -> float:
            return float(np.mean(ndtr(shift - bounds) + ndtr(-shift - bounds))) - POWER

        return float(brentq(excess, 0, bounds[-1] + 1)) * self.standard_error


def welch_t_test(first: Sequence[float], second: Sequence[float]) -> TTest | None:
    """Compare the means of two independent samples of unequal variance (Welch, 1947).

    Args:
        first: A value per run, such as its accuracy.
        second: The same of the other runs; as many or not.

    Returns:
        The test, or None where there is none: fewer than two values on a side, or values that do not vary.
    """
    if min(len(first), len(second)) < 2:
        return None
    parts = [variance(values) / len(values) for values in (first, second)]
    error = math.sqrt(sum(parts))
    if _no_spread(error, *first, *second):
        return None
    df = sum(parts) ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True))
    return TTest(fmean(first) - fmean(second), error, df)


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> TTest | None:
    """Compare the means of values that belong together in pairs, such as accuracies of the same seed (Student, 1908).

    Returns:
        The test, or None where there is none: fewer than two pairs, or differences that do not vary.

    Raises:
        ValueError: If the samples differ in length.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if len(differences) < 2:
        return None
    error = math.sqrt(variance(differences) / len(differences))
    if _no_spread(error, *first, *second):
        return None
    return TTest(fmean(differences), error, len(differences) - 1)


def _no_spread(error: float, *values: float) -> bool:
    """Whether a standard error is no more than what rounding leaves: 0.3 - 0.2 is not 0.4 - 0.3."""
    return error <= 1e-12 * max(map(abs, values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for how many there are (Holm, 1979): reject where the adjusted value is below the level.

    With m values in ascending order, the i-th becomes the largest of (m - j + 1) p_j over j <= i, and at most 1.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted
