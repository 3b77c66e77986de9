"""The command that a command ends with: it can be typed as it stands, and is the one that makes sense then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from autolora.cli import _parse, doctor, evaluate
from autolora.experiments.evaluation_config import EvaluationConfig


@pytest.fixture
def run(tmp_path: Path) -> str:
    folder = tmp_path / "my runs" / "it's"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    return str(folder)


def parsed(words: list[str]) -> Any:
    """Return the options of a command, which the parser has to take."""
    assert words[0] == "autolora"
    options = _parse(words[1:])
    assert isinstance(options, Namespace)
    return options


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"fast": True}, "evaluate"),
        ({"attack": ("pgd-20",)}, "evaluate"),
        ({}, "report"),
        ({"out": "elsewhere"}, "doctor"),  # where no report looks for it
    ],
)
def test_after_an_evaluation_of_a_run(run: str, changes: dict[str, Any], command: str) -> None:
    words, _ = evaluate._next(EvaluationConfig(run, **changes))
    options = parsed(words)
    assert options.command == command
    assert run in (options[command].get("model"), *(options[command].get("runs") or []))


def test_after_an_evaluation_of_somebody_elses_model() -> None:
    config = EvaluationConfig("resnet20_cifar", data="cifar10.zip", weights="w.th", fast=True)
    options = parsed(evaluate._next(config)[0])["evaluate"]
    assert (options.model, options.data, options.weights, options.fast) == ("resnet20_cifar", "cifar10.zip", "w.th", 0)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["packaged", "--data", "photos.zip", "--eps", "4/255"], "fit"),
        (["resnet18", "--data", "photos.zip", "--norm", "L2", "--eps", "0.5"], "fit"),
        (["resnet20_cifar", "--data", "cifar10.zip", "--weights", "w.th"], "evaluate"),
        (["packaged", "--data", "cub", "--data-root", "sets"], "fit"),
        (["RUN"], "evaluate"),
        (["RUN", "--data", "others/"], "evaluate"),
    ],
)
def test_after_the_doctor_found_nothing(run: str, words: list[str], command: str) -> None:
    asked = parsed(["autolora", "doctor", *(run if word == "RUN" else word for word in words)])["doctor"]
    options = parsed(doctor._next(asked)[0])
    assert options.command == command
    given = options[command]
    assert (given.model, given.data, given.data_root) == (asked.model, asked.data, asked.data_root)
    assert asked.eps is None or asked.eps in map(str, given.eps if isinstance(given.eps, list) else [given.eps])
