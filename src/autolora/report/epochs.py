"""What happened epoch by epoch: losses by their names, validation accuracies, rates, loss weights, similarities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from autolora.experiments.loss_terms import loss_terms as terms_of
from autolora.report.collected import CollectedRun, Row
from autolora.report.drawing import Plot, near_in_percent, style_of
from autolora.report.series import Decoration, Series, line_plot, vertical
from autolora.report.threats import differing_threats, name_under
from autolora.report.wording import percent

SHARES = {"val_natural": "natural validation images (SA)", "val_robust": "validation images under PGD-10 (RA)"}
WEIGHTS = {
    "lambda1": "lambda1 weighs the natural term, and falls as the branch gets better on natural training images.",
    "lambda2": "lambda2 weighs the consistency term, and grows as the branch gets better on them.",
}
SIMILARITY = (
    "How alike the gradients of two loss terms are in the backbone: 1 is agreement, 0 indifference, -1 contradiction. "
    "The band is one standard error over images."
)


def epoch_plots(runs: Sequence[CollectedRun]) -> list[Plot]:
    """Draw every quantity that the logs of the runs hold: of one run together, of several each beside the others'."""
    logged = [run for run in runs if run.history]
    if not logged:
        return []
    plots = _accuracies(logged) + _rates(logged) + _weights(logged)
    for place, run in enumerate(logged):
        of = "" if len(runs) == 1 else f" of {run.name}"
        plots += _losses(run, place, of) + _similarities(run, place, of)
    return plots


def loss_terms(run: CollectedRun) -> list[str]:
    """Return the names of a run's loss terms: what its log holds beside what every log holds."""
    return terms_of(run.history)


def falls(history: Sequence[Row]) -> list[int]:
    """Return the epochs at whose beginning the learning rate fell to a half or less."""
    pairs = pairwise(history)
    return [int(new["epoch"]) for old, new in pairs if 2 * new.get("lr", math.inf) <= old.get("lr", 0) * (1 + 1e-9)]


def _accuracies(runs: Sequence[CollectedRun]) -> list[Plot]:
    if len(runs) == 1:
        series = [_series(title, i, runs[0], name) for i, (name, title) in enumerate(SHARES.items())]
        caption, marks = "Share of the validation images that the model is right on, after each epoch.", []
        if isinstance(epoch := runs[0].block("selection").get("epoch"), int):
            caption += f" The vertical line is epoch {epoch}, whose weights ship."
            marks = [vertical(epoch)]
        return _plot("accuracy", "Accuracy on validation images", caption, series, runs, [near_in_percent, *marks])
    plots = []
    for name, title in SHARES.items():
        caption = "Share of the validation images that each model is right on, after each epoch."
        threats = differing_threats(runs) if name == "val_robust" else {}
        series = [_series(name_under(run, threats), i, run, name) for i, run in enumerate(runs)]
        plots += _plot(name.replace("_", "-"), f"Accuracy on {title}", caption, series, runs, [near_in_percent])
    return plots


def _rates(runs: Sequence[CollectedRun]) -> list[Plot]:
    fallen = [(place, falls(run.history)) for place, run in enumerate(runs)]
    epochs = [f"{runs[place].name}: {', '.join(map(str, found))}" for place, found in fallen if found]
    if len(runs) == 1:
        epochs = [text.removeprefix(f"{runs[0].name}: ") for text in epochs]
    caption = "Learning rate of each epoch. " + (
        f"Vertical lines: here it fell to a half or less, before epoch {'; '.join(epochs)}."
        if epochs
        else "It never fell to a half or less."
    )
    marks = [vertical(epoch - 0.5, style_of(place)) for place, found in fallen for epoch in found]
    named = [run.name if len(runs) > 1 else "learning rate" for run in runs]
    series = [_series(name, i, run, "lr", steps=True) for i, (name, run) in enumerate(zip(named, runs, strict=True))]
    return _plot("rate", "Learning rate", caption, series, runs, [_logarithmic, *marks])


def _weights(runs: Sequence[CollectedRun]) -> list[Plot]:
    if len(runs) == 1:
        series = [_series(name, i, runs[0], name) for i, name in enumerate(WEIGHTS)]
        return _plot("weights", "Loss weights", " ".join(WEIGHTS.values()), series, runs, [])
    plots = []
    for name, caption in WEIGHTS.items():
        series = [_series(run.name, i, run, name) for i, run in enumerate(runs)]
        plots += _plot(name, f"Loss weight {name}", caption, series, runs, [])
    return plots


def _losses(run: CollectedRun, place: int, of: str) -> list[Plot]:
    caption = f"Mean over the training images of each term of the {run.method} loss, its weight included."
    series = [_series(name, i, run, name) for i, name in enumerate(loss_terms(run))]
    return _plot(f"loss-{place}", f"Loss terms{of}", caption, series, [run], [])


def _similarities(run: CollectedRun, place: int, of: str) -> list[Plot]:
    names = dict.fromkeys(name for row in run.history for name in row if name.startswith("gs_"))
    pairs = [
        name for name in names if not name.endswith(("_se", "_left_out")) and name[3:] not in ("images", "seconds")
    ]
    series = [_series(name.removeprefix("gs_"), i, run, name) for i, name in enumerate(pairs)]
    return _plot(f"similarity-{place}", f"Gradient similarity{of}", SIMILARITY, series, [run], [])


def _series(name: str, place: int, run: CollectedRun, column: str, *, steps: bool = False) -> Series:
    rows = [row for row in run.history if column in row]
    errors = [row.get(f"{column}_se", 0.0) for row in rows]
    intervals = tuple((row[column] - error, row[column] + error) for row, error in zip(rows, errors, strict=True))
    points = tuple((row["epoch"], row[column]) for row in rows)
    return Series(name, style_of(place), points, intervals if any(errors) else (), steps)


def _plot(
    name: str,
    title: str,
    caption: str,
    series: Sequence[Series],
    runs: Sequence[CollectedRun],
    decorations: Sequence[Decoration],
) -> list[Plot]:
    epochs = max(run.epochs for run in runs)

    def along_epochs(axes: Axes) -> None:
        axes.set_xlim(0.5, epochs + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))

    write = {"write": percent} if near_in_percent in decorations else {}
    return line_plot(f"epoch-{name}", title, caption, series, [along_epochs, *decorations], x="epoch", **write)


def _logarithmic(axes: Axes) -> None:
    """Make the axis of rates logarithmic, with ticks at 1, 2 and 5; rates of 0 would have no place on it."""
    if axes.dataLim.y0 > 0:
        axes.set_yscale("log")
        axes.set_ylim(axes.dataLim.y0 / 1.5, axes.dataLim.y1 * 1.5)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axes.yaxis.set_minor_locator(NullLocator())
