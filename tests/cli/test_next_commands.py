"""The command that a command ends with: it can be typed as it stands, and is the one that makes sense then."""

from __future__ import annotations

from dataclasses import replace
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


@pytest.mark.parametrize("model", ["RUN", "resnet20_cifar"])
@pytest.mark.parametrize("fast", [True, False])
def test_after_an_evaluation_the_same_is_asked_about(run: str, model: str, fast: bool) -> None:
    """Of the same images under the same adversary, and into a folder that the first one has not taken."""
    given: dict[str, Any] = {"data": "a b.zip", "data_root": "sets", "split": "val", "norm": "L2", "image_size": 16}
    given |= {"weights": "w.th", "weights_format": "salman2020"} if model != "RUN" else {}
    out = None if fast else "elsewhere"
    config = EvaluationConfig(run if model == "RUN" else model, eps=("1/2", "0.25"), fast=fast, out=out, **given)
    words, _ = evaluate._next(config)
    options = parsed(words)[words[1]]
    assert words[1] == ("evaluate" if fast else "doctor")
    assert {name: options[name] for name in given} == given
    assert options.eps == (["1/2", "0.25"] if fast else "1/2")
    if fast:
        assert EvaluationConfig(options.model).folder != config.folder


def test_of_a_radius_in_other_units_the_doctor_is_told_nothing() -> None:
    config = EvaluationConfig("packaged", data="d", eps=("8/255",), eps_in="normalised")
    assert evaluate._next(config)[0] == ["autolora", "doctor", "packaged", "--data", "d"]
    words = evaluate._next(replace(config, fast=True))[0]
    assert parsed(words)["evaluate"].eps_in == "normalised"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["packaged", "--data", "photos.zip", "--eps", "4/255"], "fit"),
        (["vit_tiny", "--data", "d", "--weights", "w.th", "--weights-format", "x", "--image-size", "64"], "evaluate"),
        (["resnet18", "--data", "photos.zip", "--image-size", "64"], "fit"),
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
    for name in ("model", "data", "data_root", "weights_format", "image_size"):
        assert given[name] == asked[name]
    assert asked.eps is None or asked.eps in map(str, given.eps if isinstance(given.eps, list) else [given.eps])
