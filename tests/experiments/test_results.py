"""The tables under docs/results/suites are what `autolora suite table` makes of the runs that are kept beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolora.cli import run
from autolora.experiments.suites.reading import suite_ids

FOLDER = Path(__file__).parents[2] / "docs" / "results" / "suites"
TABLES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem in suite_ids())


def test_table_1_is_there() -> None:
    assert "autolora.T1" in TABLES


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_made_of_the_kept_runs(name: str, tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    assert run(["suite", "table", name, "--runs", str(FOLDER / "kept"), "--out", str(out), "--quiet"]) == 0
    again = f"autolora suite table {name} --runs docs/results/suites/kept --out docs/results/suites/{name}.md"
    assert out.read_text() == (FOLDER / f"{name}.md").read_text(), f"make it anew: {again}"
