"""Several runs beside each other: what ``autolora compare`` says of them, and on which images they disagree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from autolora.errors import InputError
from autolora.evaluation import Discordance, holm
from autolora.experiments.comparison import compare
from autolora.experiments.conclusion import caveats, p_value, verdict
from autolora.report.collected import CollectedRun
from autolora.report.evaluations import NATURAL
from autolora.report.threats import differing_threats, title_under
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

    @property
    def p(self) -> float:
        """Return the p value of McNemar's test."""
        _, b, c, _ = self.counts
        return Discordance(b, c, sum(self.counts)).p

    def sentence(self, p: float, tests: int) -> str:
        """Say what it means, for images that are a sample.

        Args:
            p: The p value, adjusted for how many tests there are.
            tests: That many.
        """
        _, b, c, _ = self.counts
        found = f"{p_value(p)} after Holm for {tests} comparisons" if tests > 1 else p_value(p)
        return (
            f"On a sample of {sum(self.counts):,} images under {self.attack}, {self.first} is still right on {b} that "
            f"{self.other} loses, and {self.other} on {c} that {self.first} loses (exact McNemar {found})."
        )


def conclusion(runs: Sequence[CollectedRun]) -> Conclusion | None:
    """Compare finished runs as ``autolora compare`` does; None for a single one."""
    finished = [run for run in runs if run.finished]
    if len(finished) < 2:
        return None
    try:
        comparison = compare([run.folder for run in finished])
    except InputError as error:
        return Conclusion("", (f"These runs cannot be compared: {error}.",))
    alone = {group.runs[0].folder: group.name for group in comparison.groups if len(group.runs) == 1}
    sampled = _on_samples(finished, alone)  # named as in the verdict, where that names a single run
    left_out = tuple(text for text in comparison.left_out if text.split(" ", 1)[0] not in sampled)
    notes = caveats(replace(comparison, left_out=left_out))
    return Conclusion(verdict(comparison), (*_sentences(sampled), *notes))


def disagreements(runs: Sequence[CollectedRun]) -> list[Disagreement]:
    """Count where every two runs on the same test images disagree, under every attack that was tried on both."""
    threats = differing_threats(runs)
    return [
        replace(item, attack=title_under(attack, first, threats))
        for first, other in combinations(runs, 2)
        for attack, item in _disagreements(first, other).items()
    ]


def _disagreements(first: CollectedRun, other: CollectedRun) -> dict[str, Disagreement]:
    """Count where two runs disagree, by attack; nothing for runs on other images."""
    if first.verdicts is None or other.verdicts is None or first.images_key != other.images_key:
        return {}
    mine, theirs, found = dict(first.judgements), dict(other.judgements), {}
    for attack in (name for name in mine if name in theirs and _same_attack(first, other, name)):
        if np.array_equal(mine[attack].index, theirs[attack].index):
            a, b = mine[attack].right[attack], theirs[attack].right[attack]
            counts = (int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()))
            found[attack] = Disagreement(attack_title(attack), first.name, other.name, counts)
    return found


def _same_attack(first: CollectedRun, other: CollectedRun, attack: str) -> bool:
    """Whether two runs mean the same by an attack: of one threat model, and of one kind."""
    if attack == NATURAL:
        return True
    return str(first.threat) == str(other.threat) and _label(first, attack) == _label(other, attack)


def _label(run: CollectedRun, attack: str) -> str:
    """Return what the attack may be called whose verdicts count, as its score says; its key where that does not."""
    verdicts = dict(run.judgements)[attack]
    later = (item.scores for item in run.evaluations if item.verdicts is verdicts)
    scores = run.own if verdicts is run.verdicts else next(later)
    return next((item.label for item in scores if item.attack == attack and item.label), attack)


def _sentences(sampled: Mapping[str, Sequence[Disagreement]]) -> Iterator[str]:
    """Say what samples show; p values are adjusted by Holm's method for the comparisons under each attack."""
    for items in sampled.values():
        adjusted = holm([item.p for item in items])
        yield from (item.sentence(p, len(items)) for item, p in zip(items, adjusted, strict=True))


def _on_samples(runs: Sequence[CollectedRun], names: Mapping[Path, str]) -> dict[str, list[Disagreement]]:
    """Return, by attack, how the first run differs from every other on a sample of the images that both have."""
    found: dict[str, list[Disagreement]] = {}
    for other in runs[1:]:
        for attack, item in _disagreements(runs[0], other).items():
            if runs[0].verdicts is not None and sum(item.counts) < len(runs[0].verdicts.index):
                first, second = (names.get(run.folder, run.name) for run in (runs[0], other))
                found.setdefault(attack, []).append(replace(item, first=first, other=second))
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
    return [(str(name), tuple(_fact(each.get(name, MISSING)) for each in blocks)) for name in names]


def _fact(value: object) -> str:
    return "; ".join(map(number, value)) if isinstance(value, list) else number(value)


def _shown(value: object) -> str:
    return "found out" if value is None else str(value)
