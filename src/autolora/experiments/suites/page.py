"""The list of all runs as one page that needs nothing else: click on a heading to sort."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from autolora.experiments.suites.leaderboard import COLUMNS, COUNTS, HIGH_FIRST, Entry, shown

NUMBERS = (*HIGH_FIRST, *COUNTS, "seed", "seconds")
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #1b1b1b; background: #fff }
.wide { overflow-x: auto }
table { border-collapse: collapse }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #c8c8c8; text-align: left; white-space: nowrap }
td.number { text-align: right; font-variant-numeric: tabular-nums }
th button { all: unset; cursor: pointer; font-weight: 600 }
th button:focus-visible { outline: 2px solid #1b1b1b }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
@media (prefers-color-scheme: dark) {
  body { color: #e6e6e6; background: #161616 } th, td { border-color: #444 }
  th button:focus-visible { outline-color: #e6e6e6 }
}
"""
SCRIPT = """
const table = document.querySelector("table"), body = table.tBodies[0];
for (const [column, heading] of [...table.tHead.rows[0].cells].entries())
  heading.querySelector("button").addEventListener("click", () => {
    const before = heading.getAttribute("aria-sort");
    const now = before === null ? heading.dataset.first : before === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", now);
    const value = row => row.cells[column].dataset.value, sign = now === "ascending" ? 1 : -1;
    const compare = (a, b) => heading.dataset.number ? a - b : a.localeCompare(b);
    body.append(...[...body.rows].sort((a, b) =>
      value(a) === "" ? 1 : value(b) === "" ? -1 : sign * compare(value(a), value(b))));
  });
"""


def as_html(entries: Sequence[Entry]) -> str:
    """Write the list as a page."""
    head = "".join(_heading(name, title) for name, title in COLUMNS.items())
    body = "\n".join(f"<tr>{''.join(_cell(entry, name) for name in COLUMNS)}</tr>" for entry in entries)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Runs</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{len(entries)} finished runs</h1>
<p>Accuracies are on test images. Rows can be compared where data and threat model are the same. Click on a heading to
sort.</p>
<div class="wide" tabindex="0" role="region" aria-label="Runs">
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _heading(name: str, title: str) -> str:
    first = "descending" if name in HIGH_FIRST else "ascending"
    number = ' data-number="1"' if name in NUMBERS else ""
    return f'<th scope="col" data-first="{first}"{number}><button type="button">{escape(title)}</button></th>'


def _cell(entry: Entry, name: str) -> str:
    value = getattr(entry, name)
    kind = ' class="number"' if name in NUMBERS else ""
    return f'<td{kind} data-value="{escape("" if value is None else str(value))}">{escape(shown(entry, name))}</td>'
