"""The accuracies that a reader came for: under the run's own threat model on its test images, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from autolora.evaluation import Score
from autolora.experiments.conclusion import interval
from autolora.experiments.strength import strength
from autolora.report.collected import CollectedRun
from autolora.report.drawing import Key, Plot, Table, across_in_percent, draw, style_of
from autolora.report.evaluations import NATURAL, Measured
from autolora.report.threats import differing_threats, name_under, title_under
from autolora.report.wording import percent, shortened

WRITTEN = ("right", "accuracy", "95 % interval")
TITLE = "Test accuracies with their intervals"
CAPTION = "Share of the test images that are right, and under attack still right; lines are 95 % Wilson intervals."


def written(score: Score) -> tuple[str, str, str]:
    """Write an accuracy as counts, share and interval in per cent."""
    return f"{score.correct:,} of {score.total:,}", percent(score.accuracy), interval(score.ci95)


def main_scores(run: CollectedRun) -> list[Measured]:
    """Return the scores on test images under the run's own threat model; of one attack the one on most images."""
    found: dict[str, Measured] = {}
    for item in run.measured:
        fits = item.split == "test" and item.threat == str(run.threat)
        if fits and (item.attack not in found or item.score.total > found[item.attack].score.total):
            found[item.attack] = item
    return sorted(found.values(), key=lambda item: strength(item.attack))


def interval_plot(runs: Sequence[CollectedRun]) -> list[Plot]:
    """Draw the main scores of all runs as a forest plot, if there are any."""
    rows = [(place, item) for place, run in enumerate(runs) for item in main_scores(run)]
    if not rows:
        return []
    attacks, threats = sorted({item.attack for _, item in rows}, key=strength), differing_threats(runs)

    def paint(axes: Axes) -> None:
        for place, item in rows:
            y = -attacks.index(item.attack) - 0.7 * (place - (len(runs) - 1) / 2) / len(runs)
            style = style_of(place if len(runs) > 1 else int(item.attack != NATURAL))
            axes.plot(item.score.ci95, [y, y], color=style.colour, linewidth=2)
            axes.plot([item.score.accuracy], [y], marker=style.marker, color=style.colour, markersize=6)
        axes.set_yticks([-place for place in range(len(attacks))], [shortened(name) for name in attacks])
        axes.set_ylim(0.4 - len(attacks), 0.6)
        axes.grid(False, axis="y")
        across_in_percent(axes)

    svg = draw("intervals", TITLE, CAPTION, paint, 0.6 + max(0.34, 0.15 * len(runs)) * len(attacks))
    several = runs if len(runs) > 1 else ()
    keys = tuple(Key(name_under(run, threats), style_of(place)) for place, run in enumerate(several))
    return [Plot(TITLE, CAPTION, svg, keys, _table([(runs[place], item) for place, item in rows], threats))]


def _table(rows: Sequence[tuple[CollectedRun, Measured]], threats: Mapping[str, str]) -> Table:
    cells = ((run.name, title_under(item.attack, run, threats), *written(item.score)) for run, item in rows)
    return Table(("run", "attack", *WRITTEN), tuple(cells))
