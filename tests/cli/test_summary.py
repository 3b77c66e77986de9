"""What the terminal shows: the numbers of result.json, and no others."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from autolora.cli.summary import print_comparison, print_result
from autolora.experiments.result import RunResult


def result(natural: float, robust: float, total: int = 200) -> RunResult:
    def score(accuracy: float) -> dict[str, Any]:
        return {
            "accuracy": accuracy,
            "correct": round(accuracy * total),
            "total": total,
            "ci95": [accuracy - 0.04, accuracy + 0.04],
        }

    return RunResult(
        Path("runs/x"),
        {
            "threat_model": {"norm": "Linf", "eps": "8/255", "radius": 8 / 255},
            "data": {"val": 125, "majority": 0.525},
            "selection": {"epoch": 3, "standard_error": 0.045},
            "epochs_run": 7,
            "seconds": 31.4,
            "scores": {"natural": score(natural), "pgd-10": score(robust)},
        },
    )


def test_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(result(0.915, 0.62))
    out = capsys.readouterr().out
    rows = {line.split("   ")[0].strip(): line for line in out.splitlines()}
    assert "91.5%  [87.5, 95.5]" in rows["natural (SA)"]
    assert "62.0%  [58.0, 66.0]" in rows["under PGD-10 (RA)"]
    assert "52.5%" in rows["always the commonest class"]
    assert "200 images, threat model Linf with eps 8/255" in out
    assert "Epoch 3 of 7 was selected on 125 validation images (standard error 4.5 points)" in out


def test_two_runs_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(result(0.9, 0.6), result(0.97, 0.01), Path("runs/x/report.html"))
    lines = capsys.readouterr().out.splitlines()
    control = next(line for line in lines if line.strip().startswith("natural fine-tuning"))
    robust = next(line for line in lines if line.strip().startswith("AutoLoRa"))
    assert control.index("97.0%") < control.index("1.0%  [")
    assert robust.index("90.0%") < robust.index("60.0%")
    assert robust.index("60.0%") == control.index(" 1.0%")  # in one column
    assert "took       63 s" in lines
    assert "report     runs/x/report.html  (open it in a browser)" in lines


def test_the_next_command_is_typed_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    run = result(0.9, 0.6)
    print_result(RunResult(Path("my runs/it's"), run.content), "autolora report {folder}")
    typed = capsys.readouterr().out.splitlines()[-1].removeprefix("next       ")
    assert shlex.split(typed) == ["autolora", "report", "my runs/it's"]


@pytest.mark.parametrize(("robust", "said"), [(0.62, False), (0.525, True), (0.1, True)])
def test_a_model_that_is_worth_less_than_a_constant_is_called_so(
    robust: float, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commonest class alone would be right on 52.5 %, whatever the attack."""
    print_result(result(0.915, robust))
    assert ("no more often than one that always answers the commonest class" in capsys.readouterr().out) == said
