"""Plots as inline SVG: drawn by matplotlib, coloured by the page, read by screen readers, the same every time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from autolora.report.wording import plain

WIDTH = 4.3  # inches: as wide as a phone shows, so that its text stays legible there
INK, GRID = "#1b1b1b", "#c8c8c8"
PER_CENT = StrMethodFormatter("{x:.0%}")
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
SETTINGS: Any = {  # newer releases of matplotlib spell all keys out in its type
    "svg.fonttype": "none",  # text stays text: it can be read, found and copied
    "svg.hashsalt": "autolora",  # names inside the file are the same every time
    "text.parse_math": False,  # a class may be called "$x$"
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}


@dataclass(frozen=True)
class Style:
    """How a series looks: never by its colour alone.

    Args:
        colour: As matplotlib draws it; the page replaces it by ``variable``, which is lighter on dark paper.
        variable: CSS variable of the page.
        marker: Of matplotlib.
        shape: The same marker around the origin, as an SVG path for the legend.
        dash: Lengths of dashes and gaps; empty for a solid line.
    """

    colour: str
    variable: str
    marker: str
    shape: str
    dash: tuple[float, ...] = ()


CIRCLE, SQUARE = "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", "M-3.5 -3.5h7v7h-7z"
UP, DIAMOND = "M0 -4.5L4.5 3.5H-4.5z", "M0 -5L5 0L0 5L-5 0z"
DOWN, LEFT = "M0 4.5L4.5 -3.5H-4.5z", "M-4.5 0L3.5 -4.5V4.5z"
STYLES = (  # the colours of Okabe and Ito, which colour-blind people tell apart
    Style("#0072b2", "--s1", "o", CIRCLE),
    Style("#d55e00", "--s2", "s", SQUARE, (4, 1.5)),
    Style("#009e73", "--s3", "^", UP, (1.2, 1.2)),
    Style("#cc79a7", "--s4", "D", DIAMOND, (5, 1.5, 1.2, 1.5)),
    Style("#e69f00", "--s5", "v", DOWN, (7, 2)),
    Style("#56b4e9", "--s6", "<", LEFT, (2.5, 1.2)),
)
THEMED = {INK: "currentColor", GRID: f"var(--grid, {GRID})"} | {
    style.colour: f"var({style.variable}, {style.colour})" for style in STYLES
}


@dataclass(frozen=True)
class Table:
    """The numbers behind a plot.

    Args:
        header: Names of the columns; the first column names the row.
        rows: Cells, already written as text.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Key:
    """An entry of a legend; the page writes it, so that a long name finds room."""

    name: str
    style: Style


@dataclass(frozen=True)
class Plot:
    """A plot with all that a page needs to show it.

    Args:
        title: What it shows.
        caption: How to read it, in a sentence; also what a screen reader says.
        svg: The drawing.
        keys: Its legend.
        table: The numbers.
    """

    title: str
    caption: str
    svg: Markup
    keys: tuple[Key, ...]
    table: Table


def style_of(place: int) -> Style:
    """Return the look of the series at a place; after the last style they begin again."""
    return STYLES[place % len(STYLES)]


def draw(name: str, title: str, caption: str, paint: Callable[[Axes], None], height: float = 2.7) -> Markup:
    """Draw one plot.

    Args:
        name: Of the plot on its page; the names inside the SVG begin with it, since a page has many.
        title: What it shows.
        caption: How to read it.
        paint: Puts the data on the axes.
        height: In inches.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        paint(axes)
        written = io.BytesIO()
        with warnings.catch_warnings():  # letters that its own font lacks are drawn by the reader's
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    return _inline(written.getvalue(), name, title, caption)


def in_percent(axes: Axes) -> None:
    """Let y be shares from 0 to 1, written in per cent."""
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.set_ylim(-0.02, 1.02)


def across_in_percent(axes: Axes) -> None:
    """Let x be shares from 0 to 1, written in per cent."""
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.set_xlim(-0.02, 1.02)


def near_in_percent(axes: Axes) -> None:
    """Let y be shares written in per cent, of which only those near the data are shown, so that lines come apart."""
    axes.yaxis.set_major_formatter(PER_CENT)
    low, high = axes.dataLim.y0, axes.dataLim.y1
    axes.set_ylim(max(-0.02, low - 0.04), min(1.02, high + 0.04))


def _inline(written: bytes, name: str, title: str, caption: str) -> Markup:
    root = ElementTree.fromstring(written)  # our own drawing: no entity, no reference to anything outside
    for part in [*root.findall(f"{SVG}metadata"), *root.findall(f"{SVG}defs[{SVG}style]")]:
        root.remove(part)  # a style in here would be that of the whole page
    _rename(root, name)
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib |= {"xmlns": SVG[1:-1], "viewBox": box, "role": "img", "class": "plot"}
    root.attrib["aria-labelledby"] = f"{name}-title {name}-desc"
    for place, (tag, text) in enumerate((("title", title), ("desc", caption))):
        element = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        element.text = plain(text)
        root.insert(place, element)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _rename(root: ElementTree.Element, name: str) -> None:
    """Take namespaces off, make ids the plot's own and drop those that nothing refers to, and let the page colour."""
    used = set(re.findall(rb"(?:href=\"#|url\(#)([^\")]+)", ElementTree.tostring(root)))
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        identity = element.attrib.pop("id", None)
        if identity is not None and identity.encode() in used:
            element.set("id", f"{name}-{identity}")
        target = element.attrib.pop(f"{XLINK}href", None)
        if target is not None:
            element.set("href", f"#{name}-{target.removeprefix('#')}")
        if "clip-path" in element.attrib:
            element.set("clip-path", element.attrib["clip-path"].replace("url(#", f"url(#{name}-"))
        if "style" in element.attrib:
            element.set("style", _themed(element.attrib["style"]))


def _themed(style: str) -> str:
    """Let the page decide on colours and letters."""
    pairs = [part.split(":", 1) for part in style.split(";") if ":" in part]
    kept = ((key.strip(), value.strip()) for key, value in pairs if key.strip() not in ("font-family", "font"))
    return "; ".join(f"{key}: {THEMED.get(value.lower(), value)}" for key, value in kept)
