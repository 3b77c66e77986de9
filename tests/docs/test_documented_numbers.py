"""The figures on the pages of methods: the papers' are the suites' own, ours those of the page with the commands."""

from __future__ import annotations

import re

import pytest
import yaml

from .blocks import ROOT

PUBLISHED = {"autolora.T1": ("natural", "pgd-10", "autoattack"), "loft.T1": ("natural", "autoattack")}
PAGES = {
    "autolora": ["autolora"],
    "vanilla-rft": ["vanilla-rft"],
    "twins": ["twins-trades", "twins-at"],
    "loft": ["loft"],
    "baselines": ["ft", "at", "alf", "slf"],
}


def rows(page: str) -> list[list[str]]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").split("## Numbers")[-1]
    return [
        [cell.strip(" *`") for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]


def ours(method: str) -> list[str]:
    return next(row[1:3] for row in rows("results/methods.md") if row[0] == method)


@pytest.mark.parametrize("page", PAGES)
def test_ours_are_those_of_the_comparison(page: str) -> None:
    told = [row for row in rows(f"methods/{page}.md") if re.search(r"\bhere\b", row[0])]
    assert [row[2:4] for row in told] == [ours(method) for method in PAGES[page]]


@pytest.mark.parametrize(
    ("page", "place", "suite", "method"),
    [
        ("autolora", 0, "autolora.T1", "autolora"),
        ("vanilla-rft", 0, "autolora.T1", "vanilla-rft"),
        ("twins", 0, "autolora.T1", "twins-trades"),
        ("loft", 0, "loft.T1", "loft"),
        ("baselines", 0, "loft.T1", "ft"),
        ("baselines", 1, "loft.T1", "at"),
    ],
)
def test_theirs_are_those_of_the_paper(page: str, place: int, suite: str, method: str) -> None:
    file = ROOT / "src/autolora/experiments/suite_files" / f"{suite}.yaml"
    published = yaml.safe_load(file.read_text(encoding="utf-8"))["published"]
    found = [dict(zip(published["columns"], row, strict=True)) for row in published["rows"]]
    theirs = next(row for row in found if row["method"] == method and row.get("data", "CIFAR-10") == "CIFAR-10")
    told = [row for row in rows(f"methods/{page}.md") if "paper" in row[0]][place]
    numbers = [float(cell) for cell in told[2:5] if re.fullmatch(r"[\d.]+", cell)]
    assert numbers == [theirs[name] for name in PUBLISHED[suite]]
