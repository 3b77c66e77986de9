"""The page in a real browser, where there is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from .folders import write_evaluation, write_history, write_run
from .test_page import HOSTILE, page_of


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two runs, of which one does what names can do."""
    root = tmp_path_factory.mktemp("pages")
    hostile = write_run(root / "a<b>", classes=[*HOSTILE, "last"], total=66, config={"data": HOSTILE[0]})
    write_history(hostile, terms=dict.fromkeys(HOSTILE, 1.0))
    write_evaluation(hostile, "x", {"natural": 48, "pgd-20": 27}, total=66, label=HOSTILE[1], classes=11)
    file = root / "report.html"
    file.write_text(page_of([hostile, write_run(root / "b")]), encoding="utf-8")
    return file


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_opens_without_a_word(browser: Any, page: Path, width: int, scheme: str) -> None:
    heard: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    tab.on("console", lambda message: heard.append(message.text))
    tab.on("pageerror", lambda error: heard.append(str(error)))
    tab.on("dialog", lambda dialog: heard.append(dialog.message))
    tab.on("request", lambda request: heard.append(request.url))
    tab.goto(page.as_uri())
    assert heard == [page.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    sizes = tab.evaluate("[...document.querySelectorAll('svg.plot')].map(svg => svg.getBoundingClientRect().width)")
    assert len(sizes) == page.read_text(encoding="utf-8").count("<svg xmlns") and min(sizes) > 200
    paper, ink = (tab.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    assert (_brightness(paper) > _brightness(ink)) == (scheme == "light")
    drawn = tab.evaluate("getComputedStyle(document.querySelector('svg.plot text')).fill")
    assert drawn == ink
    tab.locator("figure summary").first.click()
    assert tab.locator("figure table").first.is_visible()
    context.close()


def _brightness(colour: str) -> int:
    return sum(int(part) for part in re.findall(r"\d+", colour))
