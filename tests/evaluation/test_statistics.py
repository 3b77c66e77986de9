"""Intervals against published ones, and the formula of the textbook."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolora.evaluation import Score, standard_error


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_those_of_newcombe_1998(correct: int, total: int, low: float, high: float) -> None:
    """Table I of Statistics in Medicine 17, 857-872: method 3, Wilson's score interval."""
    assert Score(correct, total).ci95 == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
@settings(max_examples=50, deadline=None)
def test_the_interval_is_wilsons(counts: tuple[int, int]) -> None:
    correct, total = counts
    z, p, n = 1.959963984540054, correct / total, total
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    low, high = Score(correct, total).ci95
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-9)
    assert 0 <= low <= Score(correct, total).accuracy <= high <= 1


def test_accuracy_is_a_share() -> None:
    assert Score(3, 4).accuracy == 0.75


@pytest.mark.parametrize(("total", "accuracy"), [(7, 0.3), (5, 0.5), (4, 1.0), (1, 0.2)])
def test_the_standard_error_is_the_deviation_of_the_binomial_share(total: int, accuracy: float) -> None:
    weights = [math.comb(total, k) * accuracy**k * (1 - accuracy) ** (total - k) for k in range(total + 1)]
    variance = sum(weight * (k / total - accuracy) ** 2 for k, weight in enumerate(weights))
    assert standard_error(total, accuracy) == pytest.approx(math.sqrt(variance))


def test_the_standard_error_is_by_default_the_largest() -> None:
    assert standard_error(100) == 0.05
    assert standard_error(100) > standard_error(100, 0.4)
