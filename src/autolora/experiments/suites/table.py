"""A suite's table: ours beside theirs, and what our runs say about the claims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from autolora.errors import InputError
from autolora.experiments.suites.claims import WITHOUT_RUN, find, published, rest, shown, values
from autolora.experiments.suites.definitions import Coordinates, Suite
from autolora.experiments.suites.findings import Finding
from autolora.experiments.suites.grid import Plan
from autolora.experiments.suites.measured import Measured, by_data, read_measured
from autolora.experiments.suites.store import Store


@dataclass(frozen=True)
class Number:
    """What is in one place of a table.

    Args:
        ours: By seed, in the unit in which it is shown; of something that needs no run, under ``WITHOUT_RUN``.
        theirs: The published one; None if there is none.
        planned: The seeds that it is to be of, if it is one of runs.
    """

    ours: Mapping[int, float]
    theirs: float | None
    planned: tuple[int, ...] = ()

    @property
    def mean(self) -> float | None:
        """Return the mean over our seeds."""
        return fmean(self.ours.values()) if self.ours else None

    @property
    def deviation(self) -> float | None:
        """Return the standard deviation over our seeds (of a sample: n - 1); None for fewer than two."""
        return stdev(self.ours.values()) if len(self.ours) > 1 else None

    @property
    def fewer(self) -> str:
        """Say of which seed, or of how many, ours is, where it is of some of the planned ones only."""
        if not self.ours or WITHOUT_RUN in self.ours or len(self.ours) >= len(self.planned):
            return ""
        return f"seed {next(iter(self.ours))}" if len(self.ours) == 1 else f"{len(self.ours)} seeds"

    @property
    def difference(self) -> float | None:
        """Return ours less theirs."""
        return None if self.mean is None or self.theirs is None else self.mean - self.theirs


@dataclass(frozen=True)
class Line:
    """One row: its level on every axis, how each is shown, and a number by metric."""

    at: Coordinates
    labels: Mapping[str, str]
    numbers: Mapping[str, Number]


@dataclass(frozen=True)
class Table:
    """All that a suite's runs say.

    Args:
        plan: The suite, its scale and protocol.
        lines: Rows: those of the grid, then those that only the paper has.
        findings: A test for every claim.
        measured: The finished runs, by name.
    """

    plan: Plan
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    measured: Mapping[str, Measured]

    @property
    def suite(self) -> Suite:
        """Return whose table it is."""
        return self.plan.suite

    @property
    def axes(self) -> list[str]:
        """Return the axes that are shown: where rows differ, or a level is not what the paper calls so."""
        return [axis for axis in self.suite.grid if len(set(self._labels(axis))) > 1 or self._renamed(axis)]

    def _labels(self, axis: str) -> list[str]:
        return [line.labels.get(axis, "") for line in self.lines]

    def _renamed(self, axis: str) -> bool:
        return any(line.labels.get(axis) != str(line.at.get(axis)) for line in self.lines)


def build_table(plan: Plan, store: Store) -> Table:
    """Read the finished runs of a suite, and set them beside the published numbers.

    Raises:
        InputError: If a run's files are not what a run writes, or runs that belong together saw different data.
    """
    measured = {job.name: found for job in plan.jobs if (found := read_measured(job, store)) is not None}
    _check_data(measured.values())
    _check_samples(plan.suite.metrics, measured.values())
    findings = tuple(find(plan, measured))
    if plan.suite.kind == "p-values":
        return Table(plan, tuple(_p_lines(plan, findings)), findings, measured)
    return Table(plan, (*_grid_lines(plan, measured), *_published_lines(plan)), findings, measured)


def _grid_lines(plan: Plan, measured: Mapping[str, Measured]) -> Iterator[Line]:
    for cell in plan.cells:
        seeds = tuple(job.seed for job in cell.jobs)
        numbers = {
            name: Number(values(name, cell, measured), published(plan.suite, cell.at, name), seeds)
            for name in plan.suite.metrics
        }
        yield Line(cell.at, cell.labels, numbers)


def _published_lines(plan: Plan) -> Iterator[Line]:
    """Yield the rows that only the paper has, but not those of levels that this scale leaves out."""
    only = {axis: levels[0] for axis, levels in plan.suite.grid.items() if len(levels) == 1}
    for row in plan.suite.published:
        ours = any(all(cell.at.get(axis) == level for axis, level in row.at.items()) for cell in plan.cells)
        at = {**only, **row.at}
        if ours or any(at.get(axis) in levels for axis, levels in plan.left_out.items()):
            continue
        labels = {axis: str(level) for axis, level in at.items()}  # in the paper's words: none of it is ours
        yield Line(at, labels, {name: Number({}, row.values.get(name)) for name in plan.suite.metrics})


def _p_lines(plan: Plan, findings: Sequence[Finding]) -> Iterator[Line]:
    """Yield the rows of a table of p values: ours from tests against the reference, unadjusted as the paper's are."""
    suite, reference = plan.suite, plan.suite.reference
    ours = {(item.where, item.sides[1], item.metric): item.test.p for item in findings if item.test is not None}
    for cell in plan.cells:
        if all(cell.at[axis] == level for axis, level in reference.items()):
            continue
        place = shown(cell.labels, rest(suite, reference)), shown(cell.labels, reference)
        found = {name: ours.get((*place, name)) for name in suite.metrics}
        numbers = {
            name: Number({} if p is None else {WITHOUT_RUN: p}, published(suite, cell.at, name))
            for name, p in found.items()
        }
        yield Line(cell.at, cell.labels, numbers)


def _check_data(measured: Iterable[Measured]) -> None:
    """Refuse runs of which some saw other data than the rest, under one name."""
    for first, *others in by_data(measured):
        for item in others:
            if first.fingerprint != item.fingerprint:
                raise InputError(
                    f"{first.run.folder} and {item.run.folder} saw different data under the name "
                    f"{item.job.options['data']}; move one of them away, and run the suite again with the other's data"
                )


def _check_samples(metrics: Iterable[str], measured: Iterable[Measured]) -> None:
    """Refuse runs on the same data of which some were judged on all test images and others on a sample."""
    for name in metrics:
        for first, *others in by_data(item for item in measured if item.right(name) is not None):
            for item in others:
                numbers = [len(each.images(name)) for each in (first, item)]
                if numbers[0] != numbers[1]:
                    raise InputError(
                        f"{first.run.folder} and {item.run.folder} were judged on {numbers[0]} and {numbers[1]} images "
                        f"under {name}; move one of the evaluations away, and run the suite again"
                    )
