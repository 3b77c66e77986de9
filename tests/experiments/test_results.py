"""The tables under docs/results/suites are what `autolora suite table` makes of the runs that are kept beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolora.cli import run
from autolora.experiments.suites.reading import suite_ids

FOLDER = Path(__file__).parents[2] / "docs" / "results" / "suites"
PAPER = "-paper"  # ends the name of a table at that scale
TABLES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem.removesuffix(PAPER) in suite_ids())
OWN = sorted(FOLDER.glob("*.yaml"))  # suites that no paper has


def test_table_1_is_there() -> None:
    assert "autolora.T1" in TABLES


def test_the_list_of_all_runs_is_made_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER.parents[2])
    words = ["suite", "table", "--all", "--sort", "pgd-10", "--runs", "docs/results/suites/kept"]
    out = tmp_path / "all-runs.md"
    assert run([*words, "--out", str(out), "--quiet"]) == 0
    again = f"autolora {' '.join(words)} --out docs/results/suites/all-runs.md"
    assert out.read_text() == (FOLDER / "all-runs.md").read_text(), f"make it anew: {again}"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_made_of_the_kept_runs(name: str, tmp_path: Path) -> None:
    out, scale = tmp_path / "table.md", ["--scale", "paper"] * name.endswith(PAPER)
    words = ["suite", "table", name.removesuffix(PAPER), *scale]
    assert run([*words, "--runs", str(FOLDER / "kept"), "--out", str(out), "--quiet"]) == 0
    again = f"autolora {' '.join(words)} --runs docs/results/suites/kept --out docs/results/suites/{name}.md"
    assert out.read_text() == (FOLDER / f"{name}.md").read_text(), f"make it anew: {again}"


@pytest.mark.parametrize("suite", OWN, ids=lambda path: path.stem)
def test_a_table_of_our_own_suite_is_made_of_the_kept_runs(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER.parents[2])
    out, words = tmp_path / "table.md", ["suite", "table", str(suite.relative_to(FOLDER.parents[2]))]
    assert run([*words, "--runs", "docs/results/suites/kept", "--out", str(out), "--quiet"]) == 0
    again = f"autolora {' '.join(words)} --runs docs/results/suites/kept --out {words[-1].replace('.yaml', '.md')}"
    assert out.read_text() == suite.with_suffix(".md").read_text(), f"make it anew: {again}"
