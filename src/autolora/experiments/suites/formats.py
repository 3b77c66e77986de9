"""A suite's table as text, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from dataclasses import asdict
from typing import Any

from autolora.experiments.suites.findings import Finding
from autolora.experiments.suites.sheet import (
    PLUS_MINUS,
    Block,
    Claims,
    Listed,
    Rows,
    Sheet,
    blocks_of,
    findings_of,
    told,
)
from autolora.experiments.suites.table import Line, Number

WIDTH = 100  # of the terminal, in characters
LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    PLUS_MINUS: r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
}


def as_text(sheet: Sheet) -> str:
    """Write a sheet for the terminal."""
    return "\n\n".join(map(_as_text, blocks_of(sheet))) + "\n"


def as_markdown(sheet: Sheet) -> str:
    """Write a sheet as Markdown; the heading is of the third level."""
    heading, *rest = blocks_of(sheet)
    return "\n\n".join([f"### {heading}", *map(_as_markdown, rest)]) + "\n"


def as_latex(sheet: Sheet) -> str:
    """Write a sheet as LaTeX that needs no package: tabulars, and the notes as a paragraph."""
    return "\n\n".join(map(_as_latex, blocks_of(sheet))) + "\n"


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


def _as_text(block: Block) -> str:
    match block:
        case str():
            return block
        case Claims():
            return "\n\n".join([block.heading, *map(told, block.findings)])
        case Listed():
            return "\n".join([block.heading, *map(_item, block.items)])
    return aligned(block)


def _item(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)


def _as_markdown(block: Block) -> str:
    match block:
        case str():
            return block
        case Claims():
            return f"{block.heading}\n\n{piped(findings_of(block.findings))}"
        case Listed():
            return "\n".join([block.heading, "", *(f"- {item}" for item in block.items)])
    return piped(block)


def _as_latex(block: Block) -> str:
    match block:
        case str():
            return escaped(block)
        case Claims():
            return f"{escaped(block.heading)}\n\n{_tabular(findings_of(block.findings))}"
        case Listed():
            return escaped(" ".join([block.heading, *block.items]))
    return _tabular(block)


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
