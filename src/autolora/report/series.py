"""Lines over something that grows: epochs, radii."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from autolora.report.drawing import Key, Plot, Style, Table, draw, style_of
from autolora.report.wording import MISSING, number

Decoration = Callable[[Axes], None]  # what a plot has beside its lines
MARKERS = 12  # along a line; more would hide it


@dataclass(frozen=True)
class Series:
    """Values over x; where there is none, there is no point.

    Args:
        name: In the legend.
        style: Its look.
        points: Pairs (x, y), by ascending x.
        intervals: Lower and upper bound of each y; empty without any.
        steps: Whether a value holds for the whole of its x, and then jumps.
    """

    name: str
    style: Style
    points: tuple[tuple[float, float], ...]
    intervals: tuple[tuple[float, float], ...] = ()
    steps: bool = False


def line_plot(
    name: str,
    title: str,
    caption: str,
    series: Sequence[Series],
    decorations: Sequence[Decoration],
    *,
    x: str,
    write: Callable[[Any], str] = number,
) -> list[Plot]:
    """Draw series as lines, if there is a point in any.

    Args:
        name: Of the plot on its page.
        title: What it shows.
        caption: How to read it.
        series: The lines.
        decorations: Done to the axes afterwards.
        x: What x is.
        write: Writes a y into the table.

    Returns:
        The plot, or nothing.
    """
    shown = [one for one in series if one.points]
    if not shown:
        return []

    def paint(axes: Axes) -> None:
        for one in shown:
            _line(axes, one)
        axes.set_xlabel(x)
        for decorate in decorations:
            decorate(axes)

    keys = tuple(Key(one.name, one.style) for one in shown)
    return [Plot(title, caption, draw(name, title, caption, paint), keys, _table(shown, x, write))]


def vertical(x: float, style: Style | None = None) -> Decoration:
    """Mark an x by a line from bottom to top."""
    colour = (style or style_of(2)).colour

    def mark(axes: Axes) -> None:
        axes.axvline(x, color=colour, linewidth=1, linestyle=(0, (2, 2)))

    return mark


def _line(axes: Axes, one: Series) -> None:
    x, y = zip(*one.points, strict=True)
    dashes: Any = (0, one.style.dash) if one.style.dash else "solid"
    look = {"color": one.style.colour, "marker": one.style.marker, "linestyle": dashes}
    look["markevery"] = max(1, -(-len(x) // MARKERS))
    if one.intervals:
        low, high = zip(*one.intervals, strict=True)
        axes.fill_between(x, low, high, color=one.style.colour, alpha=0.15, linewidth=0)
    if one.steps:
        axes.step(x, y, where="mid", **look)
    else:
        axes.plot(x, y, **look)


def _table(series: Sequence[Series], x: str, write: Callable[[Any], str]) -> Table:
    values = sorted({value for one in series for value, _ in one.points})
    columns = [
        {
            point[0]: _cell(point[1], one.intervals[i] if one.intervals else None, write)
            for i, point in enumerate(one.points)
        }
        for one in series
    ]
    rows = tuple((f"{value:g}", *(column.get(value, MISSING) for column in columns)) for value in values)
    return Table((x, *(one.name for one in series)), rows)


def _cell(value: float, bounds: tuple[float, float] | None, write: Callable[[Any], str]) -> str:
    return write(value) if bounds is None else f"{write(value)} [{write(bounds[0])}, {write(bounds[1])}]"
