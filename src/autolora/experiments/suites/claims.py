"""The claims of a suite, put to the test at every place of its grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from autolora.experiments.suites.definitions import Claim, Coordinates, Suite
from autolora.experiments.suites.findings import Finding, Sample, adjusted, compare
from autolora.experiments.suites.grid import Cell, Plan
from autolora.experiments.suites.measured import Measured, planned
from autolora.experiments.suites.metrics import metric

WITHOUT_RUN = -1  # in the place of a seed, for a number that needs no run
PLAIN_AXES = ("method", "data", "model")  # whose levels say themselves what they are


def find(plan: Plan, measured: Mapping[str, Measured]) -> list[Finding]:
    """Return a finding for every claim, metric and place of the grid that it is about, p values adjusted for all.

    Args:
        plan: The suite.
        measured: Its finished runs, by name.
    """
    found = []
    for claim in plan.suite.claims or _against_reference(plan.suite):
        for name in claim.metrics:
            for first, second in _sides(claim, plan):
                sides = (_sample(name, cells, measured, claim) for cells in (first, second))
                found.append(compare(_untested(claim, name, plan, first, second), *sides))
    return adjusted(found)


def values(name: str, cell: Cell, measured: Mapping[str, Measured]) -> dict[int, float]:
    """Return the numbers of a cell by seed, in the unit in which they are shown."""
    kind = metric(name)
    if kind.origin in ("option", "count"):
        value = planned(cell.jobs[0], kind)
        return {} if value is None else {WITHOUT_RUN: value}
    runs = {job.seed: measured[job.name] for job in cell.jobs if job.name in measured}
    return {seed: value for seed, run in runs.items() if (value := run.value(name)) is not None}


def published(suite: Suite, at: Coordinates, name: str) -> float | None:
    """Return the published number of a metric at a place of the grid, if there is one."""
    for row in suite.published:
        if name in row.values and all(at.get(axis) == level for axis, level in row.at.items()):
            return row.values[name]
    return None


def shown(labels: Mapping[str, str], axes: Iterable[str]) -> str:
    """Write the levels of a row on some axes, by how each is shown."""
    return ", ".join(labels[axis] if axis in PLAIN_AXES else f"{axis} {labels[axis]}" for axis in axes)


def rest(suite: Suite, axes: Iterable[str]) -> list[str]:
    """Return the other axes of a suite's grid, of those that have several levels."""
    return [axis for axis, levels in suite.grid.items() if axis not in set(axes) and len(levels) > 1]


def _sides(claim: Claim, plan: Plan) -> Iterator[tuple[list[Cell], list[Cell]]]:
    """Yield the cells of both sides wherever on the other axes both are; several each if they are ranged over."""
    free = [axis for axis in plan.suite.grid if axis not in claim.first and axis != claim.range_over]
    places: dict[tuple[object, ...], tuple[list[Cell], list[Cell]]] = {}
    for cell in plan.cells:
        for side, levels in enumerate((claim.first, claim.second)):
            if all(cell.at[axis] == level for axis, level in levels.items()):
                places.setdefault(tuple(cell.at[axis] for axis in free), ([], []))[side].append(cell)
    yield from (sides for sides in places.values() if all(sides))


def _untested(claim: Claim, name: str, plan: Plan, first: Sequence[Cell], second: Sequence[Cell]) -> Finding:
    theirs = [_published(plan.suite, name, cells, claim) for cells in (first, second)]
    ranged = () if claim.range_over is None else (claim.range_over,)
    return Finding(
        claim.says,
        shown(first[0].labels, rest(plan.suite, (*claim.first, *ranged))),
        name,
        (shown(first[0].labels, claim.first), shown(second[0].labels, claim.second)),
        claim.higher,
        None if theirs[0] is None or theirs[1] is None else theirs[0] - theirs[1],
    )


def _published(suite: Suite, name: str, cells: Sequence[Cell], claim: Claim) -> float | None:
    """Return the paper's number of one side; none where the paper prints p values."""
    found = [value for cell in cells if (value := published(suite, cell.at, name)) is not None]
    if len(found) < len(cells) or suite.kind == "p-values":
        return None
    return found[0] if claim.range_over is None else max(found) - min(found)


def _sample(name: str, cells: Sequence[Cell], measured: Mapping[str, Measured], claim: Claim) -> Sample:
    by_seed = [values(name, cell, measured) for cell in cells]
    if claim.range_over is None:
        runs = {job.seed: measured[job.name] for job in cells[0].jobs if job.name in measured}
        return Sample(by_seed[0], runs)
    columns = {seed: [of[seed] for of in by_seed] for seed in by_seed[0] if all(seed in of for of in by_seed)}
    return Sample({seed: max(column) - min(column) for seed, column in columns.items()}, {})


def _against_reference(suite: Suite) -> Iterator[Claim]:
    """Yield, for a table of p values, the comparison of the reference with every other level."""
    for axis, level in suite.reference.items():
        for other in suite.grid[axis]:
            if other != level:
                yield Claim(f"{level} differs from {other}", suite.metrics, {axis: level}, {axis: other})
