"""A suite's table as text, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autolora.experiments.conclusion import p_value
from autolora.experiments.suites.findings import Finding
from autolora.experiments.suites.metrics import metric
from autolora.experiments.suites.table import Line, Number, Table

Rows = list[tuple[str, ...]]
PLUS_MINUS = "\u00b1"
LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    PLUS_MINUS: r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
}


@dataclass(frozen=True)
class Sheet:
    """A table with all that is said below it.

    Args:
        table: The table.
        notes: What has to be known to read it, a sentence each.
        effects: What another protocol changes, tested; empty if none was asked for.
    """

    table: Table
    notes: Sequence[str]
    effects: Sequence[Finding] = ()

    @property
    def title(self) -> str:
        """Return its heading."""
        suite = self.table.suite
        source = f"{suite.paper}, {suite.source}" if suite.source else suite.paper
        return f"{suite.id}: {suite.title} ({source})"


def as_text(sheet: Sheet) -> str:
    """Write a sheet for the terminal."""
    blocks = [block if isinstance(block, str) else aligned(block) for block in _blocks(sheet)]
    return "\n\n".join(blocks) + "\n"


def as_markdown(sheet: Sheet) -> str:
    """Write a sheet as Markdown; the heading is of the third level."""
    heading, *rest = _blocks(sheet)
    blocks = [block if isinstance(block, str) else piped(block) for block in rest]
    return "\n\n".join([f"### {heading}", *blocks]) + "\n"


def as_latex(sheet: Sheet) -> str:
    """Write a sheet as LaTeX that needs no package: tabulars, and the notes as a paragraph."""
    blocks = [escaped(block) if isinstance(block, str) else _tabular(block) for block in _blocks(sheet)]
    return "\n\n".join(blocks) + "\n"


def as_csv(sheet: Sheet) -> str:
    """Write a line per row and metric: its levels, our mean, standard deviation and seeds, theirs, the difference."""
    axes = list(sheet.table.suite.grid)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*axes, "metric", "ours", "standard_deviation", "seeds", "theirs", "difference"])
    for line in sheet.table.lines:
        for name, number in line.numbers.items():
            levels = [line.labels.get(axis, "") for axis in axes]
            seeds = " ".join(str(seed) for seed in number.ours if seed >= 0)
            writer.writerow([*levels, name, number.mean, number.deviation, seeds, number.theirs, number.difference])
    return text.getvalue()


def as_json(sheet: Sheet) -> str:
    """Write everything that is known; shares are in percent and their differences in points."""
    table = sheet.table
    content = {
        "suite": table.suite.id,
        "title": table.suite.title,
        "scale": table.plan.settings.name,
        "protocol": str(table.plan.protocol),
        "rows": [_line(line) for line in table.lines],
        "claims": [_finding(finding) for finding in table.findings],
        "protocol_effects": [_finding(finding) for finding in sheet.effects],
        "doubts": list(table.suite.doubts),
        "notes": list(sheet.notes),
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def aligned(rows: Rows) -> str:
    """Write rows for the terminal, the first of them as a heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line}".rstrip() for line in lines)


def piped(rows: Rows) -> str:
    """Write rows as Markdown."""
    header, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body))


def escaped(text: str) -> str:
    """Write text so that LaTeX shows it as it is."""
    return "".join(LATEX.get(character, character) for character in text)


def _tabular(rows: Rows) -> str:
    header, *body = (" & ".join(map(escaped, row)) + r" \\" for row in rows)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{'l' * len(rows[0])}}}",
            r"\hline",
            header,
            r"\hline",
            *body,
            r"\hline",
            r"\end{tabular}",
        ]
    )


def _blocks(sheet: Sheet) -> list[str | Rows]:
    """Return the heading, then tables and paragraphs."""
    blocks: list[str | Rows] = [sheet.title, _numbers(sheet.table)]
    if sheet.table.findings:
        blocks += ["Claims, and what our runs say:", _findings(sheet.table.findings)]
    if sheet.effects:
        blocks += ["What the other protocol changes:", _findings(sheet.effects)]
    if sheet.notes:
        blocks.append(" ".join(sheet.notes))
    if sheet.table.suite.doubts:
        blocks.append("Doubts about the published numbers: " + " ".join(sheet.table.suite.doubts))
    return blocks


def _numbers(table: Table) -> Rows:
    names, plain = table.suite.metrics, table.suite.kind == "p-values"
    theirs = {name: any(line.numbers[name].theirs is not None for line in table.lines) for name in names}
    header = list(table.axes)
    for name in names:
        title = f"p, {metric(name).title}" if plain else metric(name).title
        header += [title, *[f"{title}, theirs"] * theirs[name], *["difference"] * (theirs[name] and not plain)]
    rows: Rows = [tuple(header)]
    for line in table.lines:
        cells = [line.labels.get(axis, "") for axis in table.axes]
        for name in names:
            cells += _cells(name, line.numbers[name], theirs[name], plain)
        rows.append(tuple(cells))
    return rows


def _cells(name: str, number: Number, theirs: bool, plain: bool) -> list[str]:
    if plain:
        return [_p(number.mean), *[_p(number.theirs)] * theirs]
    write = metric(name).write
    ours = write(number.mean)
    if number.deviation is not None:
        ours += f" {PLUS_MINUS} {write(number.deviation)}"
    return [ours, *[write(number.theirs), write(number.difference, "+")] * theirs]


def _p(value: float | None) -> str:
    return "" if value is None else p_value(value).removeprefix("p ").removeprefix("= ")


def _findings(findings: Sequence[Finding]) -> Rows:
    rows: Rows = [
        ("claim", "where", "on", "theirs", "ours", "95 %", "p", "after Holm", "would have been shown", "verdict")
    ]
    for item in findings:
        kind, bounds = metric(item.metric), item.ci95
        tested = (
            ("", "", "", "", "")
            if item.test is None or bounds is None
            else (
                kind.write(item.difference, "+"),
                f"[{kind.write(bounds[0])}, {kind.write(bounds[1])}]",
                f"{_p(item.test.p)} ({item.decided_by})",
                _p(item.p_holm),
                kind.write(item.detectable) or "none",
            )
        )
        published = kind.write(item.published, "+")
        verdict = f"{item.verdict}: {item.why_not}" if item.why_not else item.verdict
        rows.append((item.says, item.where, kind.title, published, *tested, verdict))
    return rows


def _line(line: Line) -> dict[str, Any]:
    return {
        "at": dict(line.at),
        "labels": dict(line.labels),
        "metrics": {name: _number(number) for name, number in line.numbers.items()},
    }


def _number(number: Number) -> dict[str, Any]:
    by_seed = {str(seed): value for seed, value in number.ours.items() if seed >= 0}
    ours = {"mean": number.mean, "standard_deviation": number.deviation, "by_seed": by_seed}
    return {"ours": ours, "theirs": number.theirs, "difference": number.difference}


def _finding(item: Finding) -> dict[str, Any]:
    test, paired = item.test, item.paired
    return {
        "claim": item.says,
        "where": item.where,
        "metric": item.metric,
        "first": item.sides[0],
        "second": item.sides[1],
        "claimed": "higher" if item.higher else "lower",
        "theirs": item.published,
        "difference": item.difference,
        "ci95": item.ci95,
        "decided_by": item.decided_by,
        "p": None if test is None else test.p,
        "p_holm": item.p_holm,
        "tests": item.tests,
        "p_paired": None if paired is None else paired.p,
        "mcnemar": [{"seed": seed, **asdict(found), "p": found.p} for seed, found in item.images],
        "detectable": item.detectable,
        "verdict": item.verdict,
        "why_not": item.why_not,
    }


FORMATS = {"text": as_text, "markdown": as_markdown, "latex": as_latex, "csv": as_csv, "json": as_json}
SUFFIXES = {".txt": "text", ".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}
