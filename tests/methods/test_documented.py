"""The pages of the methods name every option of every method, with the default that it has."""

from __future__ import annotations

import re
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest

from autolora.methods import METHODS

PAGES = Path(__file__).parents[2] / "docs" / "methods"
PAGE = {
    "autolora": "autolora.md",
    "loft": "loft.md",
    "vanilla-rft": "vanilla-rft.md",
    "twins-at": "twins.md",
    "twins-trades": "twins.md",
    "ft": "baselines.md",
    "at": "baselines.md",
    "slf": "baselines.md",
    "alf": "baselines.md",
}


def options(name: str) -> list[Field[Any]]:
    return [item for item in fields(METHODS[name]) if item.init and item.name != "pgd"]


def documented(page: str) -> dict[str, str]:
    """Names and defaults of the rows of a page's tables."""
    text = (PAGES / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| `--(?:method-options\.)?(\w+)` \| ([^|]+) \|", text, flags=re.MULTILINE)
    return {name: default.strip().strip("`") for name, default in rows}


@pytest.mark.parametrize("name", PAGE)
def test_every_option_is_on_the_methods_page_with_its_default(name: str) -> None:
    table = documented(PAGE[name])
    for item in options(name):
        assert item.name in table, f"{PAGE[name]} does not name {item.name}"
        default = item.default
        assert table[item.name] == (f"{default:g}" if isinstance(default, int | float) else str(default))


@pytest.mark.parametrize("page", sorted(set(PAGE.values())))
def test_no_page_names_an_option_that_does_not_exist(page: str) -> None:
    text = (PAGES / page).read_text(encoding="utf-8")
    known = {item.name for name in PAGE if PAGE[name] == page for item in options(name)}
    assert set(re.findall(r"--method-options\.(\w+)", text)) <= known


def test_every_method_has_a_page() -> None:
    packaged = {name for name, cls in METHODS.items() if cls.__module__.startswith("autolora.")}
    assert packaged == PAGE.keys()
