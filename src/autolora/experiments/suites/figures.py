"""A suite's figure as SVG: curves over the epochs, or numbers along an axis of its grid."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autolora.errors import InputError
from autolora.experiments.suites.claims import shown
from autolora.experiments.suites.definitions import Level
from autolora.experiments.suites.metrics import metric
from autolora.experiments.suites.table import Line, Table

PANEL = (3.4, 2.6)  # inches
INSIDE, LINE = 6, 0.16  # names that fit beside the lines of a panel; inches that one of more takes below it
MARKERS = "osD^vPX*"
SETTINGS = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "autolora",  # names inside the file are the same every time
    "text.parse_math": False,
    "font.size": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Series:
    """What one line shows: at each place the mean over seeds, and their standard deviation (0 for one seed).

    Where nothing is known the mean is not a number, and the line has a gap: it would be a guess.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    spread: tuple[float, ...]
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes; ``ticks`` are the labels of places 0, 1, ... if x is no number of epochs."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    ticks: tuple[str, ...] = ()


def as_svg(table: Table) -> str:
    """Draw a suite's figure; the same runs give the same file.

    Raises:
        InputError: If there is nothing to draw: no finished run, or no axis of numbers.
    """
    panels = list(_curve_panels(table) if table.suite.curves else _axis_panels(table))
    panels = [panel for panel in panels if panel.series]
    if not panels:
        raise InputError(f"{table.suite.id}: there is no finished run to draw; `autolora suite run` makes them")
    with matplotlib.rc_context(SETTINGS):  # type: ignore[arg-type]
        columns = min(len(panels), 3)
        rows = -(-len(panels) // columns)
        below = LINE * max(len(panel.series) * (len(panel.series) > INSIDE) for panel in panels)
        figure = Figure(figsize=(PANEL[0] * columns, (PANEL[1] + below) * rows), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).flatten()
        for place, panel in zip(places, panels, strict=False):
            _draw(place, panel)
        for place in places[len(panels) :]:
            place.set_visible(False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Title": table.suite.title})
    return text.getvalue()


def number_axis(table: Table) -> str:
    """Return the axis of a grid along which numbers are drawn: the last whose levels are numbers, and several.

    Raises:
        InputError: If there is none.
    """
    for axis in reversed(list(table.suite.grid)):
        levels = table.suite.grid[axis]
        if len(levels) > 1 and all(isinstance(level, int | float) for level in levels):
            return axis
    raise InputError(f"{table.suite.id} has no axis of numbers to draw along; ask for its table with --out FILE.md")


def _curve_panels(table: Table) -> Iterator[Panel]:
    """Yield a panel for every curve and data set, with a line for every other cell of the grid."""
    for name in table.suite.curves:
        for data, group in _by_data(table).items():
            series = [line for cell in group if (line := _curve(table, name, cell)) is not None]
            yield Panel(data, "epoch", metric(name).title, tuple(series))


def _by_data(table: Table) -> dict[str, list[int]]:
    """Return the cells, by their number, of each data set."""
    found: dict[str, list[int]] = {}
    for number, cell in enumerate(table.plan.cells):
        found.setdefault(cell.labels.get("data", ""), []).append(number)
    return found


def _curve(table: Table, name: str, number: int) -> Series | None:
    cell = table.plan.cells[number]
    by_epoch: dict[float, list[float]] = {}
    for job in cell.jobs:
        for row in table.measured[job.name].rows if job.name in table.measured else ():
            if (value := metric(name).of_epoch(row)) is not None:
                by_epoch.setdefault(row["epoch"], []).append(value)
    return _series(_name(cell.labels, _telling(table)), by_epoch) if by_epoch else None


def _telling(table: Table, along: str | None = None) -> list[str]:
    """Return the axes that tell lines apart: those on which rows differ, but ``data`` and the one along the bottom."""
    several = [axis for axis in table.suite.grid if len({line.at.get(axis) for line in table.lines}) > 1]
    return [axis for axis in several if axis not in ("data", along)]


def _name(labels: Mapping[str, str], axes: Sequence[str]) -> str:
    """Name a line by its levels on the axes that tell lines apart; if there are none, by its method."""
    return shown(labels, [axis for axis in axes if axis in labels]) or labels.get("method", "ours")


def _axis_panels(table: Table) -> Iterator[Panel]:
    """Yield a panel for every metric and data set, along the axis of numbers, ours and theirs."""
    axis = number_axis(table)
    levels = [level for level in table.suite.grid[axis] if level not in table.plan.left_out.get(axis, ())]
    for name in table.suite.metrics:
        for data in dict.fromkeys(line.labels.get("data", "") for line in table.lines):
            series = tuple(_along(table, axis, levels, name, data))
            yield Panel(data, axis, metric(name).title, series, tuple(map(str, levels)))


def _along(table: Table, axis: str, levels: Sequence[Level], name: str, data: str) -> Iterator[Series]:
    """Yield a line for each setting of the other axes, ours before theirs."""
    telling = _telling(table, axis)
    found: dict[tuple[Level | None, ...], list[Line]] = {}
    for line in table.lines:
        if line.labels.get("data", "") == data and line.at.get(axis) in levels:
            found.setdefault(tuple(line.at.get(other) for other in telling), []).append(line)
    ours, theirs = [], []
    for lines in found.values():
        named = _name(lines[0].labels, telling)
        numbers = {float(levels.index(line.at[axis])): line.numbers[name] for line in lines}
        own = {place: list(number.ours.values()) for place, number in numbers.items()}
        printed = {place: [] if number.theirs is None else [number.theirs] for place, number in numbers.items()}
        ours += [_series(named, own)] * any(own.values())
        theirs += [_series(f"{named}, theirs", printed, dashed=True)] * any(printed.values())
    yield from ours
    if ours:
        yield from theirs


def _series(name: str, values: Mapping[float, Sequence[float]], *, dashed: bool = False) -> Series:
    places = sorted(values)
    spread = tuple(stdev(values[place]) if len(values[place]) > 1 else 0.0 for place in places)
    means = tuple(fmean(values[place]) if values[place] else math.nan for place in places)
    return Series(name, tuple(places), means, spread, dashed)


def _draw(axes: Axes, panel: Panel) -> None:
    for number, line in enumerate(panel.series):
        marker, style = MARKERS[number % len(MARKERS)], "--" if line.dashed else "-"
        axes.errorbar(
            line.x, line.y, yerr=line.spread, label=line.name, marker=marker, linestyle=style, markersize=3.5, capsize=2
        )
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), panel.ticks)
    else:  # there are no half epochs
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(panel.series) > INSIDE:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    else:
        axes.legend(frameon=False)
