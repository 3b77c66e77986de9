"""What a comparison shows, in one sentence of plain words, and what has to be known to read it."""

from __future__ import annotations

from collections.abc import Iterator

from autolora.evaluation import Discordance
from autolora.evaluation.statistics import LEVEL, POWER
from autolora.experiments.comparison import Comparison, Contrast
from autolora.experiments.judged import JudgedRun
from autolora.experiments.selection import selected_on

ONE_SEED_EACH = (
    "McNemar's test compares two trained models, one seed each; whether their methods differ takes two or more seeds "
    "of both."
)
BACKBONE = ("model", "weights", "weights_format", "adapter")  # options that say which weights a run begins with


def verdict(comparison: Comparison) -> str:
    """Say under the strongest attack which group is better and by how much, or what could not be shown."""
    if not comparison.contrasts:
        runs = len(comparison.groups[0].runs)
        return f"The {runs} runs differ in nothing but the seed: there is no other configuration to compare with."
    metric = comparison.decisive
    adjusted = zip(comparison.contrasts, comparison.adjusted(metric), strict=True)
    clauses = [_clause(contrast, metric, p, _tests(comparison)) for contrast, p in adjusted]
    where = "On natural images" if metric == "natural" else f"Under {metric}"
    return f"{where} {'; '.join(clauses)}."


def caveats(comparison: Comparison) -> list[str]:
    """Return what a reader of the verdict has to know, a sentence each."""
    notes = []
    metric = comparison.decisive
    differences = [contrast.differences[metric] for contrast in comparison.contrasts]
    if any(not difference.over_seeds for difference in differences):
        notes.append(ONE_SEED_EACH)
    notes += [note for contrast in comparison.contrasts for note in _unused(contrast, metric)]
    if any(p is not None and p >= LEVEL for p in comparison.adjusted(metric)):
        level = f"{LEVEL}" if _tests(comparison) == 1 else f"{LEVEL} / {_tests(comparison)}"
        notes.append(
            f"What would have been shown is the difference that a test at the level {level} finds with probability "
            f"{POWER}: its standard error times the sum of the quantiles at 1 - level / 2 and at {POWER}."
        )
    if _tests(comparison) > 1:
        notes.append(f"p values are adjusted by Holm's method for {_tests(comparison)} comparisons of each metric.")
    notes += [*_selected_on_test(comparison), *_beginnings(comparison)]
    return [*notes, *(f"{text[0].upper()}{text[1:]}." for text in comparison.left_out)]


def deciding_test(contrast: Contrast) -> str:
    """Return the name of the test that decides about a contrast."""
    return "Welch" if next(iter(contrast.differences.values())).over_seeds else "exact McNemar"


def in_points(value: float, sign: str = "") -> str:
    """Write a share as percentage points: 0.123 as ``12.3``; ``sign="+"`` shows a plus as well."""
    return f"{round(100 * value, 1) + 0.0:{sign}.1f}"  # + 0.0: no -0.0


def interval(bounds: tuple[float, float]) -> str:
    """Write an interval of shares in percentage points."""
    return f"[{in_points(bounds[0])}, {in_points(bounds[1])}]"


def p_value(p: float) -> str:
    """Write a p value with two digits, or as many as keep it on its side of the level; a tiny one as a bound."""
    if p < 1e-4:
        return "p < 0.0001"
    written = (f"{p:.{digits}g}" for digits in range(2, 18))
    return "p = " + next(text for text in written if (float(text) < LEVEL) == (p < LEVEL))


def _clause(contrast: Contrast, metric: str, p: float | None, tests: int) -> str:
    test = contrast.differences[metric].deciding
    better, worse = contrast.first.name, contrast.other.name
    if test is None or p is None:
        return f"no test of {better} against {worse} is possible, as no accuracy varies over the seeds"
    low, high = test.ci95
    if test.difference < 0:
        better, worse, low, high = worse, better, -high, -low
    size = in_points(abs(test.difference))
    holm = " after Holm" if tests > 1 else ""
    found = f"(95 % {interval((low, high))}, {deciding_test(contrast)} {p_value(p)}{holm})"
    if p < LEVEL:
        return f"{better} is better than {worse} by {size} points {found}"
    lead = f"{size} points for {better}" if test.difference else "0.0 points"
    names = f"{contrast.first.name} and {contrast.other.name}"
    return f"no difference between {names} could be shown: {lead} {found}; {_would_have_been(contrast, metric, tests)}"


def _would_have_been(contrast: Contrast, metric: str, tests: int) -> str:
    """Say which difference the test would have found."""
    test = contrast.differences[metric].deciding
    assert test is not None
    sample = f"{len(contrast.first.runs)} and {len(contrast.other.runs)} seeds"
    if isinstance(test, Discordance):
        sample = f"{test.total:,} images"
    size = test.detectable(LEVEL / tests)
    if size is None or size > 1:
        return f"with {sample} none could have been"
    return f"with {sample} a difference of about {in_points(size)} points would have been"


def _unused(contrast: Contrast, metric: str) -> list[str]:
    """Say which runs a test leaves out."""
    first, other, difference = contrast.first, contrast.other, contrast.differences[metric]
    names = f"{first.name} and {other.name}"
    if not difference.over_seeds and len(first.runs) + len(other.runs) > 2:
        seed = difference.images[0][0][0]
        return [f"Of {names} only the runs of seed {seed} are tested; t-tests take two or more seeds of both."]
    if difference.over_seeds and not difference.images:
        return [f"{names} have no seed in common: nothing is paired."]
    return []


def _selected_on_test(comparison: Comparison) -> Iterator[str]:
    """Say which groups have runs whose epoch was selected on the test images that they are compared on."""
    chosen = [group.name for group in comparison.groups if any(map(_saw_test_images, group.runs))]
    if all(_saw_test_images(run) for group in comparison.groups for run in group.runs):
        yield (
            "The epoch of every run was selected on the test images themselves, so the accuracies are better than they "
            "would be on others; no interval and no p value allows for that."
        )
    elif chosen:
        yield (
            f"Runs of {'; '.join(chosen)} had their epoch selected on the test images themselves, and others had not: "
            "their accuracies are better than they would be on other images, and the comparison favours them."
        )


def _saw_test_images(run: JudgedRun) -> bool:
    notes, stated = run.content["data"].get("notes"), run.content.get("selected_on", "val")
    return selected_on(notes if isinstance(notes, list) else (), str(stated)) == "test"


def _beginnings(comparison: Comparison) -> Iterator[str]:
    """Say which runs name the same pre-trained backbone and began with different weights of it.

    A path tells where weights lie, not which; and pre-training rounds otherwise on another machine.
    """
    found: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for group in comparison.groups:
        for run in group.runs:
            first = _started_from(run)
            if first is not None and run.config["weights"] != "none":  # random weights are those of the seed
                named = tuple(str(run.config[name]) for name in BACKBONE)
                found.setdefault(named, {}).setdefault(first, []).append(group.name)
    for (model, weights, *_), having in found.items():
        if len(having) > 1:
            names = dict.fromkeys(name for each in having.values() for name in each)
            backbone = model if weights == "auto" else f"{model} with the weights {weights}"
            yield (
                f"Runs of {'; '.join(names)} name the same backbone, {backbone}, and began with {len(having)} sets of "
                "its weights: part of the differences between them is that of their backbones, which no test "
                "here allows for."
            )


def _started_from(run: JudgedRun) -> str | None:
    """Return the fingerprint of the weights that a run began with; None in runs of before it was kept."""
    model = run.content.get("model")
    first = model.get("started_from") if isinstance(model, dict) else None
    return first if isinstance(first, str) else None


def _tests(comparison: Comparison) -> int:
    return len(comparison.contrasts)
