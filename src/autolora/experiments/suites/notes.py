"""What has to be known to read a table, a sentence each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from autolora.evaluation import Discordance
from autolora.evaluation.statistics import LEVEL, POWER
from autolora.experiments.conclusion import ONE_SEED_EACH
from autolora.experiments.suites.findings import OPEN
from autolora.experiments.suites.measured import Measured, by_data
from autolora.experiments.suites.metrics import metric
from autolora.experiments.suites.protocols import HABITS
from autolora.experiments.suites.store import State, Store
from autolora.experiments.suites.table import Table

# of what a run recorded of its circumstances, beside device and precision, that by which it may round otherwise
CIRCUMSTANCES = {"cpu": "{}", "threads": "threads: {}", "torch": "torch {}"}
OF_PROCESSOR = ("cpu", "threads")
OVER = {
    "mean": "the mean over the epochs in which it was measured",
    "highest": "the highest of the epochs, which need not be the one that ships, nor that of another column",
    "last": "that of the last epoch",
}


def notes(table: Table, store: Store) -> list[str]:
    """Return what has to be known to read a table.

    Args:
        table: The table.
        store: Where its runs are.
    """
    runs = [*_runs(table, store), *_machines(table), *_beginnings(table)]
    return [*runs, *_protocol(table), *_scale(table), *_evaluations(table), *_epochs(table), *_tests(table)]


def _runs(table: Table, store: Store) -> Iterator[str]:
    """Say which runs are there, and what became of the others."""
    jobs = table.plan.jobs
    if not jobs:
        return
    states = Counter(store.state(job) for job in jobs)
    counts = ", ".join(f"{states[state]} {state.value}" for state in State if states[state])
    seeds = sorted({job.seed for job in jobs})
    yield (
        f"{len(jobs)} runs with the seeds {', '.join(map(str, seeds))}: {counts}. Only finished ones are read. Ours is "
        "the mean over seeds, and after \u00b1 the standard deviation (n - 1)."
    )


def _machines(table: Table) -> Iterator[str]:
    """Say on what the runs were computed, where they recorded that it was not the same for all."""
    environments = [found.run.content["environment"] for found in table.measured.values()]
    told = {name: words for name, words in CIRCUMSTANCES.items() if len(_recorded(environments, name)) > 1}
    machines = {
        ", ".join(
            [f"{item['device']} in {item['precision']}"]
            + [words.format(item[name]) for name, words in told.items() if _recorded([item], name)]
        )
        for item in environments
    }
    if len(machines) > 1:
        yield f"The runs were not all computed alike: {'; '.join(sorted(machines))}."


def _recorded(environments: Iterable[Mapping[str, Any]], name: str) -> set[str]:
    """Return what runs recorded of something, of the processor only where it computed."""
    alike = [item for item in environments if name not in OF_PROCESSOR or item["device"].startswith("cpu")]
    return {str(item[name]) for item in alike if name in item}


def _beginnings(table: Table) -> Iterator[str]:
    """Say which backbones were pre-trained more than once: runs from different weights differ by more than chance.

    Pre-training rounds otherwise on another machine, so its seed does not make its weights the same there.
    """
    weights: dict[str, list[str | None]] = {}
    for found in table.measured.values():
        first = found.run.content.get("model", {}).get("started_from")  # absent in runs of before it was kept
        if found.job.backbone is not None:
            weights.setdefault(found.job.backbone.name, []).append(first)
    for name, several in sorted(weights.items()):
        known, unknown = {first for first in several if first is not None}, several.count(None)
        if len(known) > 1:
            yield (
                f"Runs began with {len(known)} different pre-trainings of {name}: part of the differences between "
                "them is that of their backbones, which no test here allows for."
            )
        if known and unknown:
            yield (
                f"{unknown} of {len(several)} runs from {name} do not say with which of its pre-trainings they began: "
                "it may be another than that of the rest."
            )
        if not known and unknown > 1:
            yield (
                f"None of the {unknown} runs from {name} says with which of its pre-trainings it began: there may have "
                "been several."
            )


def _protocol(table: Table) -> Iterator[str]:
    protocol = table.plan.protocol
    if not protocol.habits:
        yield "Protocol: sound. Epochs are selected on validation images; all methods train on the same images."
    for habit in protocol.habits:
        yield f"Protocol: {habit}, that is, {HABITS[habit]}."


def _scale(table: Table) -> Iterator[str]:
    """Say what stands for what at this scale."""
    plan = table.plan
    yield f"Scale {plan.settings.name}: {plan.settings.about}."
    for axis, levels in plan.suite.grid.items():
        for level in levels:
            if plan.settings.level(axis, level) and (label := plan.settings.label(axis, level)) != str(level):
                kept = level not in plan.left_out.get(axis, ())
                yield from [f"{label} stands for the paper's {level}."] * kept
    if plan.left_out and plan.suite.published:
        left = (f"{axis} {', '.join(map(str, levels))}" for axis, levels in plan.left_out.items())
        yield f"Not at this scale: {'; '.join(left)}."
    if plan.settings.name != "paper" and plan.suite.published and plan.suite.trains:
        yield "Ours and theirs are of different data and backbones: compare differences between rows, not levels."


def _evaluations(table: Table) -> Iterator[str]:
    """Say what an attack is called with these classes, and which evaluations were not used."""
    for name in table.suite.metrics:
        if metric(name).origin != "score":
            continue
        asked = [found for found in table.measured.values() if found.right(name) is not None]
        scores = [score for found in asked if (score := found.score(name)) is not None]
        labels = sorted({str(score["label"]) for score in scores if "label" in score})
        if labels:
            yield f"{metric(name).title}: {', '.join(labels)}."
        yield from _samples(name, by_data(asked))
        others = [found for found in table.measured.values() if found.right(name) is None]
        unused = sorted({found.run.unused[name] for found in others if name in found.run.unused})
        yield from (f"{metric(name).title} is left out where {text}." for text in unused)


def _samples(name: str, groups: Sequence[Sequence[Measured]]) -> Iterator[str]:
    """Say where a metric is about some of the test images only, and whether they are the same for all runs."""
    for group in groups:
        first = group[0]
        if not first.is_sampled(name):
            continue
        title = metric(name).title + f", {first.job.options['data']}" * (len(groups) > 1)
        few, many = len(first.images(name)), len(first.run.images)
        if all(first.shares_images(other, name) for other in group):
            yield f"{title}: on {few} of the {many} test images, the same for all runs."
        else:
            yield f"{title}: on samples of {few} of the {many} test images, not all of the same images."


def _epochs(table: Table) -> Iterator[str]:
    """Say which number stands for the epochs of a run."""
    for name in table.suite.metrics:
        measured = any(found.value(name) is not None for found in table.measured.values())
        if metric(name).origin == "epochs" and measured:
            yield f"{metric(name).title}: of each run {OVER[metric(name).over]}."


def _tests(table: Table) -> Iterator[str]:
    """Say how differences were tested, and which would have been shown."""
    tested = [finding for finding in table.findings if finding.test is not None]
    if not tested:
        return
    names = " and ".join(sorted({finding.decided_by for finding in tested}))
    kinds = {"Welch": "Welch's two-sided t-test over seeds", "exact McNemar": "McNemar's exact test on the test images"}
    how = names if " and " in names else kinds[names]
    several = len(tested) > 1
    many = f"after Holm they are adjusted for the {len(tested)} tests of this table"
    yield f"p values: {how}; {many if several else 'this table has one test'}."
    if any(isinstance(finding.test, Discordance) for finding in tested):
        yield ONE_SEED_EACH
    for name in dict.fromkeys(finding.metric for finding in tested):
        sizes = [found for finding in tested if finding.metric == name and (found := finding.detectable) is not None]
        if sizes:
            bounds = " to ".join(dict.fromkeys(metric(name).write(bound) for bound in (min(sizes), max(sizes))))
            unit = " points" if metric(name).is_share else ""
            yield (
                f"{metric(name).title}: the smallest difference that the tests would have shown with probability "
                f"{POWER}, at the level {LEVEL}{f' / {len(tested)}' * several}, is {bounds}{unit}."
            )
    if any(finding.verdict == OPEN for finding in tested):
        yield f"'{OPEN}' means that the adjusted p value is not below {LEVEL}: no evidence either way."
