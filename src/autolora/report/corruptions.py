"""Accuracy under common corruptions, as tables whose shades show where a model is weak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autolora.report.collected import CollectedRun
from autolora.report.evaluations import NATURAL, Evaluation


@dataclass(frozen=True)
class CorruptionTable:
    """Accuracies by type of corruption.

    Args:
        title: Of what.
        columns: Severities, or runs.
        rows: Type of corruption with its accuracies in [0, 1]; None where there is none.
        natural: Accuracy without corruption on the same images, for each column.
        note: On how many images, and whose constants.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]
    natural: tuple[float | None, ...]
    note: str

    def loss(self, column: int, share: float) -> float:
        """Return which part of the accuracy without corruption is lost in a cell, in [0, 1]."""
        natural = self.natural[column]
        return max(0.0, 1 - share / natural) if natural else 0.0


def corruption_tables(runs: Sequence[CollectedRun]) -> list[CorruptionTable]:
    """Return a table of the runs side by side, where there are several, and one by severity for each."""
    having = [(run, found) for run in runs if (found := _most_images(run)) is not None]
    tables = [_severities(run, found, "" if len(runs) == 1 else f" of {run.name}") for run, found in having]
    return tables if len(having) < 2 else [_side_by_side(having), *tables]


def _most_images(run: CollectedRun) -> Evaluation | None:
    having = [item for item in run.evaluations if item.corruptions is not None and item.split == "test"]
    return max(having, key=lambda item: item.images, default=None)


def _severities(run: CollectedRun, found: Evaluation, of: str) -> CorruptionTable:
    types: dict[str, Any] = (found.corruptions or {})["types"]
    severities = sorted({str(severity) for each in types.values() for severity in each["accuracy"]})
    natural = _natural(found)
    rows: list[tuple[str, tuple[float | None, ...]]] = [("no corruption", (*([None] * len(severities)), natural))]
    for name, each in types.items():
        rows.append((_words(name), (*(_share(each["accuracy"].get(s)) for s in severities), each["mean_accuracy"])))
    columns = (*severities, "mean")
    title = f"Accuracy under common corruptions{of}"
    return CorruptionTable(title, columns, tuple(rows), (natural,) * len(columns), _note(found))


def _side_by_side(having: Sequence[tuple[CollectedRun, Evaluation]]) -> CorruptionTable:
    evaluations = [found for _, found in having]
    names = list(dict.fromkeys(name for found in evaluations for name in (found.corruptions or {})["types"]))
    natural = tuple(_natural(found) for found in evaluations)
    rows: list[tuple[str, tuple[float | None, ...]]] = [("no corruption", natural)]
    rows.append(("all types", tuple((found.corruptions or {})["mean_accuracy"] for found in evaluations)))
    for name in names:
        each = [(found.corruptions or {})["types"].get(name, {}) for found in evaluations]
        rows.append((_words(name), tuple(_share(one.get("mean_accuracy")) for one in each)))
    columns = tuple(f"{run.name}, {found.images:,} images" for run, found in having)
    note = "Means over the severities."
    if len({found.images for found in evaluations}) > 1:
        note += " The numbers of images differ, so that the columns are not quite comparable."
    return CorruptionTable("Accuracy under common corruptions, side by side", columns, tuple(rows), natural, note)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _natural(found: Evaluation) -> float | None:
    return next((item.score.accuracy for item in found.scores if item.attack == NATURAL), None)


def _share(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def _note(found: Evaluation) -> str:
    content = found.corruptions or {}
    constants = content.get("constants")
    mean = f"{content['mean_accuracy']:.1%} on average, on {content['total']:,} test images. Columns are severities."
    return mean + (f" The constants are those of {constants}." if constants else "")
