"""The notebooks run from top to bottom, on tiny photos; they are kept without what they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .blocks import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells(notebook: Path) -> list[dict[str, Any]]:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_output(notebook: Path) -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells(notebook))
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) >= (4, 5)
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])


def test_the_first_look(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    first, *rest = cells(ROOT / "examples" / "first_look.ipynb")
    assert first["metadata"]["tags"] == ["parameters"]
    names: dict[str, Any] = {"__name__": "notebook"}
    exec("".join(first["source"]), names)
    names |= {"DATA": str(photos), "EPOCHS": 1}
    for cell in rest:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert names["accuracies"][0] >= names["accuracies"][-1]
    assert names["report"].is_file() and names["report"].parent == Path(names["OUT"])
    assert "pgd-10" in capsys.readouterr().out
