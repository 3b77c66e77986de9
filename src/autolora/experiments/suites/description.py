"""What a suite is, in words: its runs, what is claimed of each, doubts, and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from autolora.experiments.suites.claims import published
from autolora.experiments.suites.cost import cost_of
from autolora.experiments.suites.definitions import KINDS, Claim, Suite
from autolora.experiments.suites.formats import aligned
from autolora.experiments.suites.grid import SCALES, Cell, Plan, plan
from autolora.experiments.suites.metrics import attacks_to_ask, metric
from autolora.experiments.suites.protocols import HABITS
from autolora.experiments.suites.reading import read_suite, suite_ids
from autolora.experiments.suites.store import State, Store


def listing() -> list[dict[str, Any]]:
    """Return id, paper and title of every suite, and how many runs its grid has at each scale.

    ``runs`` is at the paper's scale; a run that several suites share counts in each.
    """
    rows = []
    for name in suite_ids():
        suite = read_suite(name)
        counts = {scale: len(plan(suite, scale).jobs) for scale in SCALES}
        row = {"id": suite.id, "paper": suite.paper, "title": suite.title}
        rows.append({**row, "runs": counts["paper"], "runs_small": counts["small"]})
    return rows


def describe(item: Plan, store: Store) -> str:
    """Describe a suite at one scale, and what there is of its runs."""
    return "\n".join(_lines(item, store)) + "\n"


def _lines(item: Plan, store: Store) -> Iterator[str]:
    suite, settings = item.suite, item.settings
    yield suite.heading
    yield f"kind {suite.kind}: {KINDS[suite.kind]}"
    yield f"scale {settings.name}: {settings.about}"
    yield f"protocol {item.protocol}" + "".join(f"\n  {habit}: {HABITS[habit]}" for habit in item.protocol.habits)
    yield ""
    yield aligned([_heading(item), *(_row(item, cell, store) for cell in item.cells)])
    for axis, levels in item.left_out.items():
        yield f"not at this scale: {axis} {', '.join(map(str, levels))}"
    yield ""
    yield from _cost(item, store)
    if suite.claims:
        yield "\nclaims"
        yield from (f"  {_claim(claim)}" for claim in suite.claims)
    if settings.name == "small" and suite.small is not None:
        yield f"\nthis scale can tell:    {suite.small.can}"
        yield f"this scale cannot tell: {suite.small.cannot}"
    if suite.doubts:
        yield "\ndoubts about the published numbers"
        yield from (f"  {doubt}" for doubt in suite.doubts)


def _heading(item: Plan) -> tuple[str, ...]:
    return (*item.suite.grid, *(f"{metric(name).title}, published" for name in _printed(item.suite)), "runs")


def _printed(suite: Suite) -> list[str]:
    """Return the metrics of which the paper prints a number at all."""
    return [name for name in suite.metrics if any(row.values.get(name) is not None for row in suite.published)]


def _row(item: Plan, cell: Cell, store: Store) -> tuple[str, ...]:
    claimed = []
    for name in _printed(item.suite):
        value = published(item.suite, cell.at, name)
        claimed.append(metric(name).write(value) if item.suite.kind != "p-values" else _p_value(value))
    labels = [
        label if label == str(cell.at[axis]) else f"{label} (for {cell.at[axis]})"
        for axis, label in cell.labels.items()
    ]
    return (*labels, *claimed, _states(item, cell, store))


def _p_value(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _states(item: Plan, cell: Cell, store: Store) -> str:
    if not item.suite.trains:
        return "none needed"
    counts = Counter(store.state(job) for job in cell.jobs)
    return ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])


def _cost(item: Plan, store: Store) -> Iterator[str]:
    """Say how many runs there are, and how many passes of images through the network those cost that are missing."""
    if not item.suite.trains:
        return
    attacks = attacks_to_ask(item.suite.metrics)
    missing = [job for job in item.jobs if store.state(job) is not State.FINISHED]
    first = [job for job in item.backbones if store.state(job) is not State.FINISHED]
    yield f"{len(item.jobs)} runs, {len(missing)} to do; {len(item.backbones)} backbones, {len(first)} to do"
    runs, backbones = cost_of(missing, item.settings, attacks), cost_of(first, item.settings)
    if runs is None or backbones is None:
        yield "their cost is not known: the settings do not say how many images there are, or a method how many passes"
        return
    cost = runs + backbones
    yield f"to do, in passes of one image through the network: {cost.training:.2g} to train, {cost.testing:.2g} to test"
    if attacks:
        yield f"and at most {cost.autoattack:.2g} for {', '.join(attacks)} (evaluate; --skip-evaluation leaves it out)"


def _claim(claim: Claim) -> str:
    sides = [", ".join(f"{axis} {level}" for axis, level in side.items()) for side in (claim.first, claim.second)]
    what = ", ".join(metric(name).title for name in claim.metrics)
    over = "" if claim.range_over is None else f", range over {claim.range_over}"
    return f"{claim.says} ({what}{over}: {sides[0]} {'>' if claim.higher else '<'} {sides[1]})"
