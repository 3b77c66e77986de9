"""Which classes a model knows and which an adversary can take from it, and what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from autolora.evaluation import Score
from autolora.report.accuracies import written
from autolora.report.collected import CollectedRun
from autolora.report.drawing import Key, Plot, Table, across_in_percent, draw, style_of
from autolora.report.evaluations import Verdicts
from autolora.report.wording import MISSING, attack_title, percent, shortened

Scores = Mapping[str, Sequence[Score | None]]  # by attack, of each class; None of one without an image

TITLE = "Accuracy on each class"
PLOTTED = 30  # classes in a plot; the table behind it has all
LARGEST_MATRIX = 20  # classes; of more, only what is confused most often is listed
PAIRS = 20
FEWEST = 25  # images a class, on average, that an attack has to be tried on; of fewer an accuracy says little


@dataclass(frozen=True)
class Confusion:
    """What images of each class are taken for.

    Args:
        title: Of which images, under which attack.
        classes: Names.
        counts: Images by true class (rows) and predicted class (columns); one more column, if it is needed, for
            images on which the logits are not finite.
        note: On how many images, and what else has to be known.
    """

    title: str
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    note: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return (*self.classes, *["no finite answer"] * (self.counts.shape[1] - len(self.classes)))

    @property
    def shares(self) -> NDArray[np.float64]:
        """Return the counts as shares of their true class, in [0, 1]."""
        return self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)

    @property
    def small(self) -> bool:
        """Whether the matrix can be shown as a whole."""
        return len(self.classes) <= LARGEST_MATRIX

    @property
    def pairs(self) -> list[tuple[str, str, int, float]]:
        """Return what is confused most often: true class, what it is taken for, images, share of the class."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong[:, : len(self.classes)], 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
        places = [divmod(int(place), wrong.shape[1]) for place in order]
        return [
            (self.classes[row], self.columns[column], int(wrong[row, column]), float(self.shares[row, column]))
            for row, column in places
            if wrong[row, column]
        ]


def confusion(
    title: str, note: str, classes: Sequence[str], label: NDArray[np.int64], predicted: NDArray[np.int64]
) -> Confusion:
    """Count what images of each class are taken for; a prediction of -1 is none."""
    answered = predicted >= 0
    width = len(classes) + int(not answered.all())
    counts = np.zeros((len(classes), width), dtype=np.int64)
    np.add.at(counts, (label, np.where(answered, predicted, len(classes))), 1)
    return Confusion(title, tuple(classes), counts, note)


def natural_confusion(run: CollectedRun) -> Confusion | None:
    """Count what the run's test images are taken for without an attack, if the verdicts are there."""
    if run.verdicts is None:
        return None
    right = run.verdicts.right["natural"]
    # the label as answer, and yet wrong: the logits were not finite, and argmax of NaN is a class all the same
    predicted = np.where(~right & (run.verdicts.predicted == run.verdicts.label), -1, run.verdicts.predicted)
    note = f"All {len(right):,} test images."
    return confusion("natural images", note, run.classes, run.verdicts.label, predicted)


def class_plots(run: CollectedRun, place: int = 0) -> list[Plot]:
    """Draw a run's accuracy on each class, natural and under each attack whose verdicts are there."""
    judged = _judged(run)
    if not judged:
        return []
    scores = {attack: _by_class(attack, verdicts, len(run.classes)) for attack, verdicts in judged}
    shown = _shown(scores[judged[-1][0]])
    caption = _caption(run, judged, len(shown))
    columns = [[column[c] for c in shown] for column in scores.values()]
    paint = partial(_paint, names=[run.classes[c] for c in shown], columns=columns)
    svg = draw(f"classes-{place}", TITLE, caption, paint, 0.5 + 0.24 * max(3, len(shown)))
    keys = tuple(
        Key(f"{attack_title(attack)}, {len(verdicts.index):,} images", style_of(i))
        for i, (attack, verdicts) in enumerate(judged)
    )
    return [Plot(TITLE, caption, svg, keys, _table(run.classes, scores))]


def _judged(run: CollectedRun) -> list[tuple[str, Verdicts]]:
    """Return the attacks whose verdicts are on enough images of each class, weakest first."""
    fewest = FEWEST * len(run.classes)
    return [each for each in run.judgements if each[1] is run.verdicts or len(each[1].index) >= fewest]


def _caption(run: CollectedRun, judged: Sequence[tuple[str, Verdicts]], shown: int) -> str:
    """Say how to read the plot, and which attacks and classes are not in it."""
    caption = "Share of each class's test images that are right, and under attack still right."
    if len(judged) < len(run.judgements):
        caption += f" Attacks that were tried on fewer than {FEWEST} images a class are left out."
    if shown < len(run.classes):
        worst = f"The {shown} of {len(run.classes)} classes that hold worst under {judged[-1][0]}"
        caption += f" {worst}; the table has all."
    return caption


def _paint(axes: Axes, names: Sequence[str], columns: Sequence[Sequence[Score | None]]) -> None:
    """Put a line for each class, from the top, and a marker on it for each attack."""
    for order, column in enumerate(columns):
        found = [(score.accuracy, -row) for row, score in enumerate(column) if score is not None]
        style = style_of(order)
        axes.plot(*zip(*found, strict=True), linestyle="none", marker=style.marker, color=style.colour, markersize=6)
    axes.set_yticks([-row for row in range(len(names))], [shortened(name) for name in names])
    axes.set_ylim(0.5 - len(names), 0.5)
    across_in_percent(axes)


def _table(classes: Sequence[str], scores: Scores) -> Table:
    header = ("class", *(text for attack in scores for text in (attack_title(attack), "95 % interval", "right")))
    rows = tuple(
        (name, *(cell for column in scores.values() for cell in _cells(column[c]))) for c, name in enumerate(classes)
    )
    return Table(header, rows)


def _by_class(attack: str, verdicts: Verdicts, classes: int) -> list[Score | None]:
    right = verdicts.right[attack]
    totals = np.bincount(verdicts.label, minlength=classes)
    correct = np.bincount(verdicts.label[right], minlength=classes)
    return [Score(int(c), int(n)) if n else None for c, n in zip(correct, totals, strict=True)]


def _shown(scores: Sequence[Score | None]) -> list[int]:
    """Return all classes in their order, or of too many those with the lowest accuracy."""
    if len(scores) <= PLOTTED:
        return list(range(len(scores)))
    accuracies = [2.0 if score is None else score.accuracy for score in scores]
    return sorted(range(len(scores)), key=lambda c: accuracies[c])[:PLOTTED]


def _cells(score: Score | None) -> tuple[str, str, str]:
    if score is None:
        return (MISSING, MISSING, "0 of 0")
    counts, _, bounds = written(score)
    return (percent(score.accuracy), bounds, counts)
