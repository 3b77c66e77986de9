"""The table that a reader looks at first: attacks down, runs across, and what each number may be called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autolora.evaluation import Score
from autolora.experiments.strength import strength
from autolora.report.accuracies import main_scores, written
from autolora.report.collected import CollectedRun
from autolora.report.evaluations import NATURAL, Measured
from autolora.report.threats import differing_threats
from autolora.report.wording import MISSING, attack_title, percent


@dataclass(frozen=True)
class Cell:
    """One accuracy of the table.

    Args:
        item: What was measured.
        whole: Whether on all of the run's test images.
        unattacked: Where not, the accuracy on the same images without an attack.
        threat: The threat model of the attack, where the runs have several; else empty.
    """

    item: Measured
    whole: bool
    unattacked: Score | None
    threat: str = ""

    @property
    def written(self) -> tuple[str, str, str]:
        """Return counts, accuracy and interval as they are written."""
        return written(self.item.score)

    @property
    def edges(self) -> tuple[float, float, float]:
        """Return interval and accuracy in per cent: low, high, and what was measured."""
        low, high = self.item.score.ci95
        return 100 * low, 100 * high, 100 * self.item.score.accuracy

    @property
    def remarks(self) -> list[str]:
        """Return what has to be known about the number: the sample, what it may be called, each part of the attack."""
        remarks = []
        if not self.whole and self.unattacked is not None:
            remarks.append(f"a sample, of which {percent(self.unattacked.accuracy)} are right without an attack")
        if self.item.label not in ("", self.item.attack):
            remarks.append(self.item.label)
        if self.item.after:
            parts = ", ".join(f"{part} {percent(share)}" for part, share in self.item.after.items())
            remarks.append(f"left standing after {parts}")
        return remarks


@dataclass(frozen=True)
class Line:
    """An attack, and a cell for each run; None where it was not measured."""

    attack: str
    title: str
    cells: tuple[Cell | None, ...]


def scoreboard(runs: Sequence[CollectedRun]) -> list[Line]:
    """Return the main scores of all runs, natural images first."""
    threats = differing_threats(runs)
    cells = [{item.attack: _cell(run, item, threats.get(run.name, "")) for item in main_scores(run)} for run in runs]
    attacks = sorted({attack for each in cells for attack in each}, key=strength)
    return [Line(attack, attack_title(attack), tuple(each.get(attack) for each in cells)) for attack in attacks]


def everything(runs: Sequence[CollectedRun]) -> list[tuple[str, ...]]:
    """Return every accuracy that any file holds: run, attack, threat model, images, accuracy, interval, label, file."""
    return [
        (
            run.name,
            attack_title(item.attack),
            "none" if item.attack == NATURAL else item.threat,
            item.split,
            *written(item.score),
            item.label or MISSING,
            item.source,
        )
        for run in runs
        for item in run.measured
    ]


def _cell(run: CollectedRun, item: Measured, threat: str) -> Cell:
    natural = [each.score.total for each in run.own if each.attack == NATURAL]
    whole = not natural or natural[0] == item.score.total
    return Cell(item, whole, _unattacked(run, item), threat if item.attack != NATURAL else "")


def _unattacked(run: CollectedRun, item: Measured) -> Score | None:
    """Return the accuracy on natural images in the file that an accuracy under attack came from."""
    for scores in (run.own, *(each.scores for each in run.evaluations)):
        if any((each.attack, each.threat, each.score) == (item.attack, item.threat, item.score) for each in scores):
            for each in scores:
                if each.attack == NATURAL and each.score.total == item.score.total:
                    return each.score
    return None
