"""What a run cost: parameters, time, images per second."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from autolora.experiments.planning.words import duration
from autolora.report.collected import CollectedRun
from autolora.report.examination import Size
from autolora.report.wording import MISSING, number


def cost_rows(runs: Sequence[CollectedRun], sizes: Mapping[str, Size]) -> list[tuple[str, tuple[str, ...]]]:
    """Return what is known of the cost of each run: a title, and the value of every run."""
    rows: dict[str, Callable[[CollectedRun], str]] = {
        "parameters": lambda run: _size(sizes.get(run.name)),
        "of these in the head": lambda run: f"{sizes[run.name].head:,}" if run.name in sizes else MISSING,
        "training images": lambda run: number(run.data.get("train", MISSING)),
        "epochs": lambda run: f"{len(run.history)} of {run.epochs}" if run.history else MISSING,
        "time per epoch": lambda run: _mean(run, "seconds", duration),
        "images per second": lambda run: _mean(run, "images_per_second", lambda value: f"{value:,.0f}"),
        "time in all": lambda run: _time(run.result.get("seconds")),
        "device": lambda run: str(run.block("environment").get("device", MISSING)),
        "precision of training": lambda run: str(run.block("environment").get("precision", MISSING)),
    }
    return [(title, tuple(value(run) for run in runs)) for title, value in rows.items()]


def _size(size: Size | None) -> str:
    return MISSING if size is None else f"{size.backbone + size.head:,}"


def _mean(run: CollectedRun, name: str, write: Callable[[float], str]) -> str:
    values = [row[name] for row in run.history if name in row]
    return write(fmean(values)) if values else MISSING


def _time(seconds: object) -> str:
    return duration(seconds) if isinstance(seconds, int | float) else MISSING
