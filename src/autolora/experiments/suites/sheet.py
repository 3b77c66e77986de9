"""What is told of a suite's table: its numbers, its claims and its notes, whatever they are written as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autolora.experiments.conclusion import p_value
from autolora.experiments.suites.findings import Finding
from autolora.experiments.suites.metrics import metric
from autolora.experiments.suites.table import Number, Table

Rows = list[tuple[str, ...]]
PLUS_MINUS = "\u00b1"


@dataclass(frozen=True)
class Claims:
    """Findings under a heading."""

    heading: str
    findings: Sequence[Finding]


@dataclass(frozen=True)
class Listed:
    """Sentences under a heading."""

    heading: str
    items: Sequence[str]


Block = str | Rows | Claims | Listed


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


def blocks_of(sheet: Sheet) -> list[Block]:
    """Return the heading, then tables, claims and lists."""
    blocks: list[Block] = [sheet.table.suite.heading, _numbers(sheet.table)]
    if sheet.table.findings:
        blocks.append(Claims("Claims, and what our runs say:", sheet.table.findings))
    if sheet.effects:
        blocks.append(Claims("What the other protocol changes:", sheet.effects))
    if sheet.notes:
        blocks.append(Listed("Notes:", sheet.notes))
    if sheet.table.suite.doubts:
        blocks.append(Listed("Doubts about the published numbers:", sheet.table.suite.doubts))
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
    ours += f" ({number.fewer})" * bool(number.fewer)
    return [ours, *[write(number.theirs), write(number.difference, "+")] * theirs]


def _p(value: float | None) -> str:
    return "" if value is None else p_value(value).removeprefix("p ").removeprefix("= ")


def findings_of(findings: Sequence[Finding]) -> Rows:
    """Return findings as the rows of a table, the first of them its heading."""
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
        rows.append((item.says, item.where, kind.title, published, *tested, _verdict(item)))
    return rows


def told(item: Finding) -> str:
    """Write a finding for the terminal: the claim, the verdict, and what it rests on."""
    kind, bounds = metric(item.metric), item.ci95
    place = ", ".join(filter(None, (item.where, kind.title)))
    words = [f"theirs {kind.write(item.published, '+')}"] if item.published is not None else []
    if item.test is not None and bounds is not None:
        ours = f"ours {kind.write(item.difference, '+')} [{kind.write(bounds[0])}, {kind.write(bounds[1])}]"
        words += [ours, f"{p_value(item.test.p)} ({item.decided_by}), after Holm {_p(item.p_holm)}"]
        words += [f"would have shown {kind.write(item.detectable)}"] * (item.detectable is not None)
    return "\n".join([f"  {item.says}", f"    {place}: {_verdict(item)}", *[f"    {'; '.join(words)}"] * bool(words)])


def _verdict(item: Finding) -> str:
    return f"{item.verdict}: {item.why_not}" if item.why_not else item.verdict
