"""A comparison of runs as text, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from autolora.cli.summary import NAMES
from autolora.evaluation import Discordance, TTest
from autolora.experiments.comparison import Comparison, Contrast, Difference, Group
from autolora.experiments.conclusion import caveats, deciding_test, in_points, interval, p_value, verdict

Table = list[tuple[str, ...]]


def as_text(comparison: Comparison) -> str:
    """Write a comparison for the terminal."""
    return "\n\n".join(block if isinstance(block, str) else _aligned(block) for block in _blocks(comparison)) + "\n"


def as_markdown(comparison: Comparison) -> str:
    """Write a comparison as Markdown."""
    return "\n\n".join(block if isinstance(block, str) else _piped(block) for block in _blocks(comparison)) + "\n"


def as_json(comparison: Comparison) -> str:
    """Write everything that is known about a comparison; accuracies and differences are shares, in [-1, 1]."""
    run = comparison.groups[0].runs[0]
    content = {
        "verdict": verdict(comparison),
        "notes": caveats(comparison),
        "data": {"fingerprint": run.content["data"]["fingerprint"], "test": comparison.images},
        "threat_model": run.content["threat_model"],
        "metrics": list(comparison.metrics),
        "groups": [_group(group, comparison.metrics) for group in comparison.groups],
        "comparisons": [_contrast(comparison, index) for index in range(len(comparison.contrasts))],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """Write a line per group and metric, with the first group's accuracy less its own, and the test that decides."""
    rows = [_row(comparison, index, metric) for index in range(len(comparison.groups)) for metric in comparison.metrics]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(comparison: Comparison, index: int, metric: str) -> dict[str, Any]:
    group = comparison.groups[index]
    scores = _scores(group, metric)
    low, high = scores["ci95"] or (None, None)
    row = {"group": group.name, "seeds": " ".join(map(str, group.seeds)), "metric": metric, "mean": scores["mean"]}
    row |= {"standard_deviation": scores["standard_deviation"], "ci95_low": low, "ci95_high": high}
    columns = ("first_minus_this", "difference_low", "difference_high", "test", "p", "p_holm")
    row |= dict.fromkeys(columns)
    if index == 0:
        return row
    contrast, adjusted = comparison.contrasts[index - 1], comparison.adjusted(metric)[index - 1]
    test = contrast.differences[metric].deciding
    if test is not None:
        row |= zip(columns, (test.difference, *test.ci95, deciding_test(contrast), test.p, adjusted), strict=True)
    return row


def _group(group: Group, metrics: tuple[str, ...]) -> dict[str, Any]:
    scores = {metric: _scores(group, metric) for metric in metrics}
    folders = [str(run.folder) for run in group.runs]
    return {"name": group.name, "folders": folders, "seeds": group.seeds, "scores": scores}


def _scores(group: Group, metric: str) -> dict[str, Any]:
    deviation = group.deviation(metric)
    alone = group.runs[0].score(metric).ci95 if deviation is None else None
    return {"mean": group.mean(metric), "standard_deviation": deviation, "ci95": alone}


def _contrast(comparison: Comparison, index: int) -> dict[str, Any]:
    contrast = comparison.contrasts[index]
    return {
        "first": contrast.first.name,
        "other": contrast.other.name,
        "differ_in": contrast.differ_in,
        "decided_by": deciding_test(contrast),
        "metrics": {
            metric: {**_difference(difference), "p_holm": comparison.adjusted(metric)[index]}
            for metric, difference in contrast.differences.items()
        },
    }


def _difference(difference: Difference) -> dict[str, Any]:
    images = [{"seeds": seeds, **asdict(found), **_test(found)} for seeds, found in difference.images]
    tests = {"welch": difference.welch, "paired": difference.paired}
    whole = {name: None if test is None else {**asdict(test), **_test(test)} for name, test in tests.items()}
    deciding = difference.deciding
    decided = {"difference": None, "ci95": None, "p": None} if deciding is None else _test(deciding)
    return {**decided, **whole, "mcnemar": images}


def _test(test: Discordance | TTest) -> dict[str, Any]:
    return {"difference": test.difference, "ci95": test.ci95, "p": test.p, "detectable": test.detectable()}


def _blocks(comparison: Comparison) -> Iterator[str | Table]:
    """Yield paragraphs and tables, the verdict last but for what has to be known to read it."""
    run = comparison.groups[0].runs[0]
    yield f"Test accuracy on {comparison.images} images, threat model {run.threat}:"
    yield _accuracies(comparison)
    yield "In brackets: Wilson's 95 % interval of one run. After \u00b1: the standard deviation over seeds."
    for index, contrast in enumerate(comparison.contrasts):
        options = ", ".join(f"{name} ({', '.join(map(str, pair))})" for name, pair in contrast.differ_in.items())
        yield f"{contrast.first.name} against {contrast.other.name}, which differ in {options}:"
        adjusted = {metric: comparison.adjusted(metric)[index] for metric in comparison.metrics}
        over_seeds = any(difference.over_seeds for difference in contrast.differences.values())
        yield _with_holm(_over_seeds(contrast) if over_seeds else _on_images(contrast), adjusted, comparison)
        if over_seeds and any(difference.images for difference in contrast.differences.values()):
            yield _by_seed(contrast)
    yield verdict(comparison)
    if notes := caveats(comparison):
        yield "\n".join(notes)


def _accuracies(comparison: Comparison) -> Table:
    rows: Table = [("", "seeds", *(_title(metric) for metric in comparison.metrics))]
    for group in comparison.groups:
        cells = (_accuracy(group, metric) for metric in comparison.metrics)
        rows.append((group.name, ", ".join(map(str, group.seeds)), *cells))
    majority = comparison.groups[0].runs[0].content["data"].get("majority")
    if isinstance(majority, float):
        rows.append(("always the commonest class", "", *(f"{majority:6.1%}" for _ in comparison.metrics)))
    return rows


def _accuracy(group: Group, metric: str) -> str:
    deviation = group.deviation(metric)
    if deviation is None:
        return f"{group.mean(metric):6.1%}  {interval(group.runs[0].score(metric).ci95)}"
    return f"{group.mean(metric):6.1%}  \u00b1 {in_points(deviation)}"


def _on_images(contrast: Contrast) -> Table:
    rows: Table = [("", "difference in points", *_right_alone(contrast), "exact McNemar")]
    for metric, difference in contrast.differences.items():
        rows.append((_title(metric), _interval(difference), *_counts(difference, 0)))
    return rows


def _over_seeds(contrast: Contrast) -> Table:
    rows: Table = [("", "difference in points", "Welch", "paired by seed")]
    for metric, difference in contrast.differences.items():
        rows.append((_title(metric), _interval(difference), _chance(difference.welch), _chance(difference.paired)))
    return rows


def _by_seed(contrast: Contrast) -> Table:
    rows: Table = [("", "seed", *_right_alone(contrast), "exact McNemar")]
    for metric, difference in contrast.differences.items():
        for index, (seeds, _) in enumerate(difference.images):
            rows.append((_title(metric), str(seeds[0]), *_counts(difference, index)))
    return rows


def _with_holm(rows: Table, adjusted: dict[str, float | None], comparison: Comparison) -> Table:
    """Add a column of adjusted p values where there is more than one comparison."""
    if len(comparison.contrasts) < 2:
        return rows
    cells = ["after Holm", *("-" if p is None else p_value(p) for p in adjusted.values())]
    return [(*row, cell) for row, cell in zip(rows, cells, strict=True)]


def _right_alone(contrast: Contrast) -> tuple[str, str]:
    return f"only {contrast.first.name} right", f"only {contrast.other.name} right"


def _counts(difference: Difference, index: int) -> tuple[str, str, str]:
    _, found = difference.images[index]
    return str(found.only_first), str(found.only_second), p_value(found.p)


def _interval(difference: Difference) -> str:
    test = difference.deciding
    return "-" if test is None else f"{in_points(test.difference, '+')}  {interval(test.ci95)}"


def _chance(test: TTest | None) -> str:
    return "-" if test is None else p_value(test.p)


def _title(metric: str) -> str:
    return NAMES.get(metric, f"under {metric}")


def _aligned(rows: Table) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line}".rstrip() for line in lines)


def _piped(rows: Table) -> str:
    header, *body = ([cell.strip() for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body))


FORMATS = {".json": as_json, ".md": as_markdown, ".csv": as_csv}  # by the suffix of a file
