"""Several runs beside each other: what ``autolora compare`` says of them, and on which images they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from autolora.errors import InputError
from autolora.experiments.comparison import compare
from autolora.experiments.conclusion import caveats, verdict
from autolora.report.collected import CollectedRun
from autolora.report.wording import MISSING, attack_title, number


@dataclass(frozen=True)
class Conclusion:
    """What may be said of the difference between runs.

    Args:
        verdict: In one sentence; empty if they cannot be compared.
        notes: What has to be known to read it, or why there is none.
    """

    verdict: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Disagreement:
    """Two runs on the same images under one attack.

    Args:
        attack: Its title.
        first: Name of a run.
        other: Name of another.
        counts: Images that both are right on, only the first, only the other, and neither.
    """

    attack: str
    first: str
    other: str
    counts: tuple[int, int, int, int]


def conclusion(runs: Sequence[CollectedRun]) -> Conclusion | None:
    """Compare finished runs as ``autolora compare`` does; None for a single one."""
    finished = [run for run in runs if run.finished]
    if len(finished) < 2:
        return None
    try:
        comparison = compare([run.folder for run in finished])
    except InputError as error:
        return Conclusion("", (f"These runs cannot be compared: {error}.",))
    return Conclusion(verdict(comparison), tuple(caveats(comparison)))


def disagreements(runs: Sequence[CollectedRun]) -> list[Disagreement]:
    """Count where every two runs on the same test images disagree, under every attack that was tried on both."""
    found = []
    for first, other in combinations(runs, 2):
        if first.verdicts is None or other.verdicts is None or first.images_key != other.images_key:
            continue
        mine, theirs = dict(first.judgements), dict(other.judgements)
        for attack in (name for name in mine if name in theirs):
            if not np.array_equal(mine[attack].index, theirs[attack].index):
                continue
            a, b = mine[attack].right[attack], theirs[attack].right[attack]
            counts = (int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()))
            found.append(Disagreement(attack_title(attack), first.name, other.name, counts))
    return found


def differing_options(runs: Sequence[CollectedRun]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the options in which runs differ, with the value of each."""
    names = list(dict.fromkeys(name for run in runs for name in run.config))
    values = [(str(name), tuple(_shown(run.config.get(name)) for run in runs)) for name in names]
    return [(name, found) for name, found in values if len(set(found)) > 1]


def facts(runs: Sequence[CollectedRun], block: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return what a block of ``result.json`` says of each run, such as ``environment``."""
    blocks = [run.block(block) for run in runs]
    names = list(dict.fromkeys(name for each in blocks for name in each))
    return [(str(name), tuple(number(each.get(name, MISSING)) for each in blocks)) for name in names]


def _shown(value: object) -> str:
    return "found out" if value is None else str(value)
