"""Accuracy against eps: how far an adversary has to go until a model gives in."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from autolora.evaluation import Score
from autolora.experiments.strength import strength
from autolora.report.collected import CollectedRun
from autolora.report.drawing import Plot, in_percent, style_of
from autolora.report.evaluations import NATURAL, Evaluation
from autolora.report.series import Series, line_plot
from autolora.report.wording import attack_title, percent
from autolora.threat import parse_radius

Curve = Mapping[float, Score]  # accuracies by radius in pixel units; at 0 that of natural images
Kind = tuple[str, str]  # norm and attack
UNITS = {"Linf": ("eps, in 255ths of the pixel range", 255.0), "L2": ("eps, Euclidean length of the perturbation", 1.0)}
CAPTION = "Share of the test images still right when the adversary may do more; 0 is no attack. Bands: 95 % intervals."


def radius_plots(runs: Sequence[CollectedRun]) -> list[Plot]:
    """Draw accuracy against eps: of one run all attacks together, of several a plot for each attack."""
    found = [curves(run) for run in runs]
    kinds = sorted({kind for each in found for kind in each}, key=lambda kind: (kind[0], strength(kind[1])))
    plots: list[Plot] = []
    if len(runs) == 1:
        for norm in dict.fromkeys(norm for norm, _ in kinds):
            having = [kind for kind in kinds if kind[0] == norm]
            series = [_series(attack_title(kind[1]), i + 1, norm, found[0][kind]) for i, kind in enumerate(having)]
            plots += _plot(norm, f"Accuracy against eps ({norm})", series, norm)
        return plots
    for place, (norm, attack) in enumerate(kinds):
        pairs = [(i, run, found[i].get((norm, attack))) for i, run in enumerate(runs)]
        series = [_series(run.name, i, norm, curve) for i, run, curve in pairs if curve is not None]
        plots += _plot(f"{norm}-{place}", f"Accuracy against eps ({norm}), {attack_title(attack)}", series, norm)
    return plots


def curves(run: CollectedRun) -> dict[Kind, Curve]:
    """Return accuracies by radius for every norm and attack that two radii were tried of, on the same test images.

    Where there are several such curves of one kind, the one with most radii, and then with most images, counts.
    """
    found: dict[tuple[Kind, Hashable], dict[float, Score]] = {}
    for evaluation in (item for item in run.evaluations if item.split == "test"):
        natural = {item.score.total: item.score for item in evaluation.scores if item.attack == NATURAL}
        for item in (*evaluation.scores, *evaluation.curve):
            norm, _, eps = item.threat.partition(" ")
            if item.attack != NATURAL and norm in UNITS and item.score.total in natural:
                key = ((norm, item.attack), _images(evaluation))
                curve = found.setdefault(key, {0.0: natural[item.score.total]})
                curve[float(parse_radius(eps))] = item.score
    several = [(kind, curve) for (kind, _), curve in found.items() if len(curve) > 2]
    several.sort(key=lambda each: (len(each[1]), each[1][0.0].total))
    return {kind: dict(sorted(curve.items())) for kind, curve in several}


def _images(evaluation: Evaluation) -> Hashable:
    """Return which test images an evaluation is on; without verdicts nobody knows whether another's are the same."""
    verdicts = evaluation.verdicts
    return evaluation.folder if verdicts is None else frozenset(verdicts.index.tolist())


def _series(name: str, place: int, norm: str, curve: Curve) -> Series:
    images = max(score.total for score in curve.values())
    points = tuple((radius * UNITS[norm][1], score.accuracy) for radius, score in curve.items())
    return Series(f"{name}, {images:,} images", style_of(place), points, tuple(score.ci95 for score in curve.values()))


def _plot(name: str, title: str, series: Sequence[Series], norm: str) -> list[Plot]:
    return line_plot(f"eps-{name}", title, CAPTION, series, [in_percent], x=UNITS[norm][0], write=percent)
