"""Draw what `scaling.py --json` has written: measured times, and the line through them.

python benchmarks/scaling_figure.py scaling.json docs/images/scaling.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LABELS = {"images": "images in a batch", "steps": "attack steps", "size": "pixels (side x side)"}
INK, LINE, POINTS = "#444444", "#8a8a8a", "#1f6f8b"


def panel(axes: Axes, row: dict[str, Any]) -> None:
    """Draw one curve, in milliseconds."""
    amounts = [int(value) ** 2 if row["of"] == "size" else int(value) for value in row["seconds"]]
    ends = [0, max(amounts)]
    axes.plot(ends, [1000 * (row["fixed"] + row["slope"] * end) for end in ends], color=LINE, linewidth=1)
    axes.plot(amounts, [1000 * seconds for seconds in row["seconds"].values()], "o", color=POINTS, markersize=5)
    fixed, slope = 1000 * row["fixed"], 1000 * row["slope"]
    axes.set_title(f"{fixed:.0f} ms + {slope:.3g} ms each", fontsize=9, color=INK)
    axes.set_xlabel(LABELS[row["of"]], fontsize=9, color=INK)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main(source: str, target: str) -> None:
    """Draw the curves that have a line."""
    content = json.loads(Path(source).read_text(encoding="utf-8"))
    rows = [row for row in content["rows"] if "slope" in row]
    mpl.rcParams["svg.hashsalt"] = "scaling"  # the same file from the same numbers
    figure = Figure(figsize=(2.9 * len(rows), 2.6), layout="constrained", facecolor="white")
    grid = figure.subplots(1, len(rows), squeeze=False)[0]
    for axes, row in zip(grid, rows, strict=True):
        panel(axes, row)
    grid[0].set_ylabel("a step, ms", fontsize=9, color=INK)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:3])
