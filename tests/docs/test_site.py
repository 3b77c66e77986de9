"""The site: every link leads somewhere, every docstring is found, and a browser asks nobody else for anything."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from autolora.experiments.config import RunConfig

from .blocks import ROOT

pytest.importorskip("material", reason="no mkdocs-material: uv sync --group docs")
pytest.importorskip("mkdocstrings", reason="no mkdocstrings: uv sync --group docs")

LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=\"?([^\"\s>]+)|<link\b[^>]*?\bhref=\"?([^\"\s>]+)")
NOWHERE = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it, strictly and without a network."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | NOWHERE | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = ["".join(found) for found in LOADED.findall(page.read_text(encoding="utf-8"))]
        assert loaded and not [address for address in loaded if re.match(r"(?:https?:)?//", address)], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_equations_are_drawn_without_a_script(site: Path) -> None:
    page = (site / "methods/autolora.html").read_text(encoding="utf-8")
    assert page.count("<math") == 2 and "$$" not in page and "(6, 7)" in page
    for file in site.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert ".. math::" not in text and ":class:" not in text
        shown = re.sub(r"(?s)<(code|pre|script|style|math)\b.*?</\1>", "", text)
        assert not re.search(r"\$[^$\n]*\$|\$\$", shown), file.name


def test_public_names_have_a_place(site: Path) -> None:
    import autolora

    page = (site / "api.html").read_text(encoding="utf-8")
    for name in set(autolora.__all__) - {"METHODS"}:
        assert re.search(rf'<h3 id="autolora\.[\w.]*\b{name}"', page), name


def test_every_option_of_a_run_is_listed_with_its_help(site: Path) -> None:
    page = re.sub(r"<[^>]+>", "", (site / "api.html").read_text(encoding="utf-8"))
    for item in fields(RunConfig):
        said = html.escape(item.metadata["help"].partition("`")[0], quote=False)
        assert re.search(rf"\b{item.name}\b", page) and said in page, item.name
