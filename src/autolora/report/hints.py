"""What a report cannot show yet, and the commands that would fill it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autolora.report import commands
from autolora.report.accuracies import main_scores
from autolora.report.collected import CollectedRun
from autolora.report.corruptions import corruption_tables
from autolora.report.evaluations import AUTOATTACK
from autolora.report.radii import curves


@dataclass(frozen=True)
class Hint:
    """Something that is missing from some runs.

    Args:
        text: What, and of which.
        commands: What would fill it, a command for each of them.
    """

    text: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class _Gap:
    section: str
    text: str  # in which {} stands for the names of the runs
    missing: Callable[[CollectedRun], bool]
    command: Callable[[CollectedRun], str]


def _unattacked(run: CollectedRun) -> bool:
    return run.finished and all(item.attack != AUTOATTACK for item in main_scores(run))


def _dissimilar(run: CollectedRun) -> bool:
    return run.finished and not any(name.startswith("gs_") for row in run.history for name in row)


GAPS = (
    _Gap("scores", "Not finished: {}. To continue:", lambda run: not run.finished, commands.resume),
    _Gap(
        "scores",
        "AutoAttack has not been run on {}, so that every number under attack is an upper bound. To run it:",
        _unattacked,
        commands.autoattack,
    ),
    _Gap(
        "training",
        "Gradient similarity was not measured in {}. To train again and do so:",
        _dissimilar,
        commands.similarity,
    ),
    _Gap(
        "radii",
        "Attacks with several eps were not tried on {}. To do so:",
        lambda run: run.finished and not curves(run),
        commands.curve,
    ),
    _Gap(
        "corruptions",
        "Corrupted images were not tried on {}. To do so:",
        lambda run: run.finished and not corruption_tables([run]),
        commands.corruptions,
    ),
)


def hints(runs: Sequence[CollectedRun]) -> dict[str, list[Hint]]:
    """Return what is missing, by the section of the report that it is missing from."""
    found: dict[str, list[Hint]] = {gap.section: [] for gap in GAPS}
    for gap in GAPS:
        lacking = [run for run in runs if gap.missing(run)]
        if lacking:
            names = ", ".join(run.name for run in lacking)
            found[gap.section].append(Hint(gap.text.format(names), tuple(map(gap.command, lacking))))
    return found
