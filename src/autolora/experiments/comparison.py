"""Compare finished runs: accuracies on the same images by McNemar's test, accuracies over seeds by t-tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from autolora.errors import InputError
from autolora.evaluation import Discordance, TTest, holm, paired_t_test, welch_t_test
from autolora.experiments.comparable import check_comparable
from autolora.experiments.judged import JudgedRun, read_judged
from autolora.experiments.strength import strength
from autolora.methods import METHODS

Values = Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed, in order of it."""

    name: str
    runs: tuple[JudgedRun, ...]

    @property
    def seeds(self) -> list[int]:
        """Return the seeds, ascending."""
        return [run.seed for run in self.runs]

    def accuracies(self, metric: str) -> list[float]:
        """Return the accuracy of each run, in [0, 1]."""
        return [run.score(metric).accuracy for run in self.runs]

    def mean(self, metric: str) -> float:
        """Return the mean accuracy over the seeds, in [0, 1]."""
        return fmean(self.accuracies(metric))

    def deviation(self, metric: str) -> float | None:
        """Return the standard deviation over the seeds (of a sample: n - 1), or None for a single run."""
        return stdev(self.accuracies(metric)) if len(self.runs) > 1 else None


@dataclass(frozen=True)
class Difference:
    """What one metric says of two groups.

    Args:
        metric: Its name.
        images: For every pair of runs on the same images, their two seeds and how the verdicts differ.
        welch: The test over seeds that decides where both groups have several; None if there is none.
        paired: The same with runs of one seed as a pair.
        over_seeds: Whether Welch's test decides, and not McNemar's on the one pair of runs.
    """

    metric: str
    images: tuple[tuple[tuple[int, int], Discordance], ...]
    welch: TTest | None
    paired: TTest | None
    over_seeds: bool

    @property
    def deciding(self) -> TTest | Discordance | None:
        """Return the test that decides: difference, 95 % interval and p; None if no accuracy varies over the seeds."""
        return self.welch if self.over_seeds else self.images[0][1]


@dataclass(frozen=True)
class Contrast:
    """The first group against another.

    Args:
        first: The first group.
        other: The other.
        differ_in: The options that they differ in, with both values.
        differences: By metric.
    """

    first: Group
    other: Group
    differ_in: Values
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Comparison:
    """What a number of runs say about each other.

    Args:
        groups: Runs by configuration, as they were given.
        metrics: What they are compared by, in the order of the first run's scores.
        contrasts: The first group against every other.
        left_out: Metrics that are not compared, and why, a sentence each.
    """

    groups: tuple[Group, ...]
    metrics: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    left_out: tuple[str, ...]

    @property
    def decisive(self) -> str:
        """Return the metric that the verdict is about: the strongest attack there is."""
        return max(self.metrics, key=strength)

    @property
    def images(self) -> int:
        """Return how many test images there are."""
        return len(self.groups[0].runs[0].images)

    def adjusted(self, metric: str) -> list[float | None]:
        """Return the p value of every contrast by Holm's method, for as many as there are of this metric.

        It is None where no test could be made.
        """
        tests = [contrast.differences[metric].deciding for contrast in self.contrasts]
        found = iter(holm([test.p for test in tests if test is not None]))
        return [None if test is None else next(found) for test in tests]


def compare(folders: Sequence[str | Path], metric: str = "all") -> Comparison:
    """Compare runs with the first of them.

    Args:
        folders: Run folders, at least two.
        metric: A score such as ``"natural"`` or ``"pgd-10"``, or ``"all"`` that every run has.

    Raises:
        InputError: If a folder holds no finished run, the runs differ in data or threat model, the metric is not
            there, or neither images nor seeds make a test.
    """
    runs = [read_judged(folder) for folder in folders]
    check_comparable(runs)
    metrics, left_out = _metrics(runs, metric)
    groups = _grouped(runs)
    contrasts = tuple(_contrast(groups[0], other, metrics) for other in groups[1:])
    return Comparison(groups, metrics, contrasts, left_out)


def _metrics(runs: Sequence[JudgedRun], asked: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the metrics that all runs have, and why others are left out."""
    known = list(dict.fromkeys(name for run in runs for name in (*run.scores, *run.unused)))
    lacks = {name: next((text for run in runs if (text := run.lack(name))), None) for name in known}
    for name in known:
        lacks[name] = lacks[name] or _relabelled(runs, name)
    common = tuple(name for name in known if lacks[name] is None)
    if asked != "all":
        if asked not in common:
            reason = lacks.get(asked) or "no run has such a score"
            raise InputError(f"metric {asked!r} cannot be compared: {reason}; all runs have {', '.join(common)}")
        return (asked,), ()
    if not common:
        raise InputError(f"the runs have no score in common: {'; '.join(f'{k}: {v}' for k, v in lacks.items())}")
    return common, tuple(f"{name} is left out: {text}" for name, text in lacks.items() if text)


def _relabelled(runs: Sequence[JudgedRun], metric: str) -> str | None:
    """Say which runs mean different attacks by one name, if some do."""
    labels = {run.folder: run.scores[metric].get("label") for run in runs}
    first, label = next(iter(labels.items()))
    for folder, other in labels.items():
        if other != label:
            return f"{first} has {label}, {folder} has {other}"
    return None


def _grouped(runs: Sequence[JudgedRun]) -> tuple[Group, ...]:
    """Put runs together that differ in the seed alone, named by their method and by what else sets them apart."""
    found: dict[str, list[JudgedRun]] = {}
    for run in runs:
        found.setdefault(json.dumps(run.recipe, sort_keys=True), []).append(run)
    recipes = [members[0].recipe for members in found.values()]
    names = [_name(recipe, [other for other in recipes if other["method"] == recipe["method"]]) for recipe in recipes]
    ordered = (tuple(sorted(members, key=lambda run: run.seed)) for members in found.values())
    return tuple(Group(name, members) for name, members in zip(names, ordered, strict=True))


def _name(recipe: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> str:
    apart = sorted({name for other in alike for name in _differing(recipe, other)})
    usual = {"rank": getattr(METHODS.get(recipe["method"]), "rank", None)}
    values = ((name, recipe.get(name, usual.get(name))) for name in apart)
    return ", ".join([recipe["method"], *(f"{name.replace('_', '-')} {_shown(value)}" for name, value in values)])


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Values:
    return {name: (a.get(name), b.get(name)) for name in sorted({*a, *b}) if a.get(name) != b.get(name)}


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "default" if value is None else json.dumps(value) if isinstance(value, dict | list) else str(value)


def _contrast(first: Group, other: Group, metrics: Sequence[str]) -> Contrast:
    pairs = _pairs(first, other)
    over_seeds = min(len(first.runs), len(other.runs)) > 1
    if not over_seeds and not pairs:
        a, b = first.runs[0], other.runs[0]
        why = a.drawn_images or b.drawn_images or "they have no seed in common"
        raise InputError(
            f"{a.folder} (seed {_listed(first.seeds)}) and {b.folder} (seed {_listed(other.seeds)}) cannot be "
            f"compared: {why}; repeat one with a seed of the other, or give two or more seeds of both"
        )
    differences = {metric: _difference(metric, first, other, pairs, over_seeds) for metric in metrics}
    return Contrast(first, other, _differing(first.runs[0].recipe, other.runs[0].recipe), differences)


def _pairs(first: Group, other: Group) -> list[tuple[JudgedRun, JudgedRun]]:
    """Return runs of the same seed; of one run each, the two, if they were tested on the same images all the same."""
    pairs = [(a, b) for a in first.runs for b in other.runs if a.seed == b.seed]
    single = len(first.runs) == len(other.runs) == 1 and first.runs[0].shares_images(other.runs[0])
    return pairs or ([(first.runs[0], other.runs[0])] if single else [])


def _difference(
    metric: str, first: Group, other: Group, pairs: Sequence[tuple[JudgedRun, JudgedRun]], over_seeds: bool
) -> Difference:
    images = tuple(((a.seed, b.seed), Discordance.between(a.right[metric], b.right[metric])) for a, b in pairs)
    welch = welch_t_test(first.accuracies(metric), other.accuracies(metric))
    paired = paired_t_test(*([pair[side].score(metric).accuracy for pair in pairs] for side in (0, 1)))
    return Difference(metric, images, welch, paired, over_seeds)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
