"""The examples run as printed, on tiny data."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from autolora import METHODS

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_says_how_to_run_it(example: Path) -> None:
    lines = example.read_text().splitlines()
    assert len(lines) <= 60
    assert any(line.strip().startswith(f"python examples/{example.name}") for line in lines[:6])


def test_writing_a_method_and_using_its_model(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, *arguments: str) -> str:
        """Run an example as its own program; what it has registered is gone then, as with a process that ends."""
        monkeypatch.setattr("sys.argv", [name, *arguments])
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        finally:
            METHODS.pop("alp", None)
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        assert "under PGD-10" in run("write_a_method.py", str(photos), "epochs=1", "out=run")
        assert "largest change of a pixel 8/255" in run("use_a_model.py", "run", str(photos))


def test_a_method_that_is_registered_twice_is_refused() -> None:
    path = str(EXAMPLES / "write_a_method.py")
    try:
        runpy.run_path(path, run_name="example")
        with pytest.raises(ValueError, match="registered already"):
            runpy.run_path(path, run_name="example")
    finally:
        METHODS.pop("alp", None)
