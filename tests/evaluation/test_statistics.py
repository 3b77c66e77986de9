"""Intervals and tests against published ones, the formulas of the textbook, and counting all cases."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autolora.evaluation import Discordance, Score, TTest, holm, paired_t_test, standard_error, welch_t_test


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


@pytest.mark.parametrize("total", [40, 200])
def test_what_is_written_down_is_shown_as_what_was_counted(total: int) -> None:
    """33 of 40 has a lower bound of 68.05001 %, which six digits make 68.05, and one digit of these 68.0."""
    for correct in range(total + 1):
        score = Score(correct, total)
        assert [f"{bound:.1%}" for bound in score.as_json()["ci95"]] == [f"{bound:.1%}" for bound in score.ci95]


@pytest.mark.parametrize(("total", "accuracy"), [(7, 0.3), (5, 0.5), (4, 1.0), (1, 0.2)])
def test_the_standard_error_is_the_deviation_of_the_binomial_share(total: int, accuracy: float) -> None:
    weights = [math.comb(total, k) * accuracy**k * (1 - accuracy) ** (total - k) for k in range(total + 1)]
    variance = sum(weight * (k / total - accuracy) ** 2 for k, weight in enumerate(weights))
    assert standard_error(total, accuracy) == pytest.approx(math.sqrt(variance))


def test_the_standard_error_is_by_default_the_largest() -> None:
    assert standard_error(100) == 0.05
    assert standard_error(100) > standard_error(100, 0.4)


# the same images


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (3, 3, 1.0),
        (5, 0, 2 / 32),
        (0, 6, 2 / 64),
        (7, 1, 2 * (1 + 8) / 256),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
    ],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p: float) -> None:
    assert Discordance(only_first, only_second, 100).p == pytest.approx(p)


@pytest.mark.parametrize(("only_first", "only_second"), [(4, 5), (1, 7), (9, 2), (11, 0)])
def test_mcnemar_is_the_share_of_coin_tosses_at_least_as_uneven(only_first: int, only_second: int) -> None:
    tosses = [sum(toss) for toss in product((0, 1), repeat=only_first + only_second)]
    uneven = [abs(2 * heads - only_first - only_second) >= abs(only_first - only_second) for heads in tosses]
    assert Discordance(only_first, only_second, 50).p == pytest.approx(sum(uneven) / len(tosses))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_swapping_the_models_mirrors_the_difference(b: int, c: int, rest: int) -> None:
    one, other = Discordance(b, c, b + c + rest), Discordance(c, b, b + c + rest)
    assert one.difference == -other.difference
    assert one.p == pytest.approx(other.p)
    assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]))
    assert one.ci95[0] <= one.difference <= one.ci95[1]
    assert one.detectable() == other.detectable()


@pytest.mark.parametrize(("b", "c", "n"), [(0, 0, 4), (1, 0, 5), (2, 1, 6), (5, 1, 7), (1, 1, 6), (0, 6, 6), (2, 4, 7)])
def test_the_interval_is_that_of_all_resamples(b: int, c: int, n: int) -> None:
    """Every way to draw n images from n with replacement, counted."""
    images = [1] * b + [-1] * c + [0] * (n - b - c)
    sums = sorted(sum(drawn) for drawn in product(images, repeat=n))
    tail = math.ceil(0.025 * len(sums))
    assert Discordance(b, c, n).ci95 == pytest.approx((sums[tail - 1] / n, sums[-tail] / n))


@pytest.mark.parametrize(("b", "c", "n"), [(40, 25, 300), (400, 13, 1000), (3, 90, 500)])
def test_the_interval_is_that_of_many_resamples(b: int, c: int, n: int) -> None:
    images = np.repeat([1, -1, 0], [b, c, n - b - c])
    drawn = np.random.default_rng(0).integers(n, size=(4000, n))
    low, high = np.quantile(images[drawn].mean(axis=1), [0.025, 0.975])
    width = high - low
    assert Discordance(b, c, n).ci95 == pytest.approx((low, high), abs=0.05 * width)


def power(share: float, difference: float, n: int) -> float:
    """Probability that exact McNemar at 5 % finds a difference, given the share of discordant images."""
    found = 0.0
    for k in range(1, n + 1):
        chance = float(stats.binom.pmf(k, n, share))
        if chance < 1e-4:
            continue
        few = next(b for b in range(k) if Discordance(b, k - b, n).p >= 0.05)  # with fewer on a side it is significant
        side = stats.binom(k, (share + difference) / 2 / share)
        found += chance * float(side.cdf(few - 1) + side.sf(k - few))
    return found


@pytest.mark.parametrize(("discordant", "n"), [(60, 200), (30, 400)])
def test_four_in_five_experiments_find_the_detectable_difference(discordant: int, n: int) -> None:
    difference = Discordance(discordant // 2, discordant - discordant // 2, n).detectable()
    assert difference is not None
    assert (
        0.74 < power(discordant / n, difference, n) < 0.86
    )  # the exact test is a little more careful than the formula


def test_the_detectable_difference_by_hand() -> None:
    z = 1.959964 + 0.841621
    assert Discordance(100, 109, 2500).detectable() == pytest.approx(z * math.sqrt(209 / 2500 / 2500), rel=1e-6)
    assert Discordance(0, 0, 100).detectable() == pytest.approx(z**2 / 100, rel=1e-6)  # then all discordant at once
    stricter = Discordance(100, 109, 2500).detectable(0.05 / 2)
    assert stricter == pytest.approx((2.241403 + 0.841621) * math.sqrt(209) / 2500, rel=1e-6)


@pytest.mark.parametrize(("n", "possible"), [(1, False), (7, False), (8, True)])
def test_a_handful_of_images_shows_nothing(n: int, possible: bool) -> None:
    assert (Discordance(1, 0, n).detectable() is not None) is possible


# seeds


def test_t_tests_by_hand() -> None:
    """With two degrees of freedom p = 1 - |t| / sqrt(t^2 + 2)."""
    welch = welch_t_test([1.0, 3.0], [5.0, 7.0])
    assert welch is not None
    assert (welch.difference, welch.standard_error, welch.df) == pytest.approx((-4, math.sqrt(2), 2))
    assert welch.p == pytest.approx(1 - math.sqrt(8) / math.sqrt(8 + 2))
    paired = paired_t_test([1.0, 4.0, 9.0], [0.0, 2.0, 6.0])  # differences 1, 2, 3
    assert paired is not None
    assert (paired.difference, paired.standard_error, paired.df) == pytest.approx((2, 1 / math.sqrt(3), 2))
    assert paired.p == pytest.approx(1 - math.sqrt(12) / math.sqrt(12 + 2))
    assert paired.ci95 == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), rel=1e-6)


SAMPLES = st.lists(st.integers(0, 1000).map(lambda count: count / 1000), min_size=2, max_size=6)


@pytest.mark.filterwarnings("ignore:Precision loss")  # says scipy where one side does not vary
@given(SAMPLES, SAMPLES)
@settings(max_examples=60, deadline=None)
def test_welch_is_scipys(first: list[float], second: list[float]) -> None:
    found, swapped = welch_t_test(first, second), welch_t_test(second, first)
    if len({*first}) == len({*second}) == 1:
        assert found is None
        return
    assert found is not None and swapped is not None
    reference = stats.ttest_ind(first, second, equal_var=False)
    assert (found.t, found.p, found.df) == pytest.approx((reference.statistic, reference.pvalue, reference.df))
    assert found.ci95 == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert (swapped.t, swapped.p) == pytest.approx((-found.t, found.p))


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_paired_test_is_scipys(pairs: list[tuple[int, int]]) -> None:
    first, second = [a / 1000 for a, _ in pairs], [b / 1000 for _, b in pairs]
    found, swapped = paired_t_test(first, second), paired_t_test(second, first)
    if len({a - b for a, b in pairs}) == 1:  # in whole numbers: differences of floats vary where these do not
        assert found is swapped is None
        return
    assert found is not None and swapped is not None
    reference = stats.ttest_rel(first, second)
    assert (found.t, found.p, found.df) == pytest.approx((reference.statistic, reference.pvalue, reference.df))
    assert found.ci95 == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert (swapped.t, swapped.p) == pytest.approx((-found.t, found.p))


def test_where_there_is_no_t_test() -> None:
    assert welch_t_test([0.5], [0.4, 0.6]) is None
    assert welch_t_test([0.1, 0.1, 0.1], [0.2, 0.2, 0.2]) is None
    assert welch_t_test([0.0, 0.0], [0.0, 0.0]) is None
    assert paired_t_test([0.3, 0.4], [0.2, 0.3]) is None  # 0.3 - 0.2 is not quite 0.4 - 0.3
    assert paired_t_test([0.5], [0.4]) is None
    assert paired_t_test([], []) is None
    with pytest.raises(ValueError, match="shorter"):
        paired_t_test([0.1, 0.2], [0.3])


@pytest.mark.parametrize("df", [1.0, 2.0, 2.6, 4.0, 8.0, 18.0])
@pytest.mark.parametrize("tests", [1, 4, 18])
def test_four_in_five_repetitions_find_the_difference_over_seeds(df: float, tests: int) -> None:
    """A normal estimate over an independent chi, drawn: no formula of the power is used."""
    rng, level = np.random.default_rng(0), 0.05 / tests
    shift = TTest(0.0, 0.01, df).detectable(level) / 0.01
    drawn = (rng.standard_normal(400_000) + shift) / np.sqrt(rng.chisquare(df, 400_000) / df)
    assert np.mean(np.abs(drawn) >= stats.t.ppf(1 - level / 2, df)) == pytest.approx(0.8, abs=0.004)


@pytest.mark.parametrize("df", [4.0, 8.0, 18.0, 200.0])
def test_the_power_is_that_of_scipys_noncentral_t(df: float) -> None:
    threshold = stats.t.ppf(0.975, df)
    shift = TTest(0.0, 1.0, df).detectable()
    found = stats.nct.sf(threshold, df, shift) + stats.nct.cdf(-threshold, df, shift)
    assert found == pytest.approx(0.8, abs=1e-4)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02]) == [0.02]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.integers(1, 999).map(lambda value: value / 1000), min_size=1, max_size=6), st.integers(1, 199))
@settings(max_examples=100, deadline=None)
def test_holm_rejects_what_stepping_down_rejects(p_values: list[float], thousandths: int) -> None:
    level = thousandths / 1000 + 0.0005 / 7  # on no multiple of a p value
    rejected = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        if p_values[index] * (len(p_values) - rank) > level:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(p_values)) if p <= level} == rejected
