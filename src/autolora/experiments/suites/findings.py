"""Whether the runs show what a paper claims: a test for every claim, and what it could have shown.

The unit is a run. Where both sides have two seeds or more, Welch's two-sided t-test over seeds decides; with one run
each on the same test images, McNemar's exact test on the images does. p values are adjusted by Holm's method for all
tests of a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autolora.evaluation import Discordance, TTest, holm, paired_t_test, welch_t_test
from autolora.evaluation.statistics import LEVEL
from autolora.experiments.suites.measured import Measured
from autolora.experiments.suites.metrics import metric

HELD, FAILED, OPEN, UNTESTED = "held up", "did not hold up", "cannot be told", "not tested"


@dataclass(frozen=True)
class Sample:
    """The numbers of one side: by seed, in the unit in which they are shown.

    Args:
        values: A number by seed.
        runs: The finished runs by seed, if a number is that of one run.
    """

    values: Mapping[int, float]
    runs: Mapping[int, Measured]


@dataclass(frozen=True)
class Finding:
    """One claim on one metric at one place of the grid.

    Args:
        says: The claim.
        where: The levels that both sides share, as they are shown.
        metric: Its name.
        sides: The levels of the two sides, as they are shown.
        higher: Whether the first side is claimed to be the higher one.
        published: The paper's difference, first less second; None if it has none.
        test: What decides, in the unit in which the metric is shown if it is of t, as a share if it is of images.
        paired: The t-test of the seeds that both sides have, as pairs.
        images: By seed, on which test images only one of the two runs is right.
        why_not: Why there is no test.
        p_holm: The p value, adjusted for all tests of the table.
        tests: How many these are.
    """

    says: str
    where: str
    metric: str
    sides: tuple[str, str]
    higher: bool
    published: float | None = None
    test: TTest | Discordance | None = None
    paired: TTest | None = None
    images: tuple[tuple[int, Discordance], ...] = ()
    why_not: str = ""
    p_holm: float | None = None
    tests: int = 1

    @property
    def unit(self) -> float:
        """Return what a difference of the test is multiplied by to be shown."""
        return metric(self.metric).factor if isinstance(self.test, Discordance) else 1.0

    @property
    def difference(self) -> float | None:
        """Return our difference, first less second."""
        return None if self.test is None else self.unit * self.test.difference

    @property
    def ci95(self) -> tuple[float, float] | None:
        """Return its 95 % interval."""
        if self.test is None:
            return None
        low, high = self.test.ci95
        return self.unit * low, self.unit * high

    @property
    def detectable(self) -> float | None:
        """Return the difference that the test would have found four times in five, at 5 % over the number of tests."""
        found = None if self.test is None else self.test.detectable(LEVEL / self.tests)
        return None if found is None else self.unit * found

    @property
    def decided_by(self) -> str:
        """Return the name of the test."""
        if self.test is None:
            return ""
        return "exact McNemar" if isinstance(self.test, Discordance) else "Welch"

    @property
    def verdict(self) -> str:
        """Say whether the claim held up; of one seed each, that it did so for these two models."""
        if self.test is None or self.p_holm is None:
            return UNTESTED
        if self.p_holm >= LEVEL:
            return OPEN
        found = HELD if (self.test.difference > 0) == self.higher else FAILED
        return f"{found} for one seed" if isinstance(self.test, Discordance) else found


def compare(finding: Finding, first: Sample, second: Sample) -> Finding:
    """Return a finding with its test.

    Args:
        finding: Without one.
        first: Numbers of the first side.
        second: Numbers of the second side.
    """
    images = tuple(_on_images(finding.metric, first, second))
    common = [seed for seed in first.values if seed in second.values]
    paired = paired_t_test(*([side.values[seed] for seed in common] for side in (first, second)))
    several = min(len(first.values), len(second.values)) > 1
    if several:
        test: TTest | Discordance | None = welch_t_test(list(first.values.values()), list(second.values.values()))
        why_not = "" if test else "no number varies over the seeds"
    else:
        test = images[0][1] if images else None
        why_not = "" if test else _missing(first, second)
    return replace(finding, test=test, paired=paired, images=images, why_not=why_not)


def adjusted(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings with p values that are adjusted for how many there are."""
    tested = [finding.test for finding in findings if finding.test is not None]
    values = iter(holm([test.p for test in tested]))
    return [
        finding if finding.test is None else replace(finding, p_holm=next(values), tests=len(tested))
        for finding in findings
    ]


def _on_images(name: str, first: Sample, second: Sample) -> Iterable[tuple[int, Discordance]]:
    """Compare runs of one seed image by image, where both were judged on the same ones."""
    for seed in first.runs:
        if seed not in second.runs:
            continue
        a, b = first.runs[seed], second.runs[seed]
        right, other = a.right(name), b.right(name)
        if right is not None and other is not None and a.shares_images(b, name):
            yield seed, Discordance.between(right, other)


def _missing(first: Sample, second: Sample) -> str:
    if not first.values or not second.values:
        return "there is no finished run of one side with this number"
    return "a test takes two seeds of both sides, or one seed of both on the same test images"
