"""Verdicts in float32: no GPU is needed to see whether it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import autolora
from autolora.attacks import PGD
from autolora.evaluation.accuracy import verdicts
from autolora.evaluation.full_precision import full_precision
from autolora.threat import ThreatModel

X, Y = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long)


def settings() -> tuple[str, str]:
    """Return how convolutions and products are computed, as torch 2.9 and later say it."""
    cudnn: Any = torch.backends.cudnn  # whose module type does not know it
    return cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision


pytestmark = pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has no such names")


@pytest.fixture
def watched() -> tuple[Callable[[Tensor], Tensor], list[tuple[tuple[str, str], bool]]]:
    """A model, and how things were set at each of its passes, and whether a gradient was wanted."""
    seen: list[tuple[tuple[str, str], bool]] = []

    def model(x: Tensor) -> Tensor:
        seen.append((settings(), x.requires_grad))
        return x.flatten(1)[:, :2]

    return model, seen


def test_it_lasts_as_long_as_it_is_wanted() -> None:
    before = settings()
    with pytest.raises(KeyError), full_precision():
        assert settings() == ("ieee", "ieee")
        raise KeyError
    assert settings() == before


def test_a_verdict_is_in_full_precision_and_a_search_as_it_was(
    watched: tuple[Callable[[Tensor], Tensor], list[tuple[tuple[str, str], bool]]],
) -> None:
    (model, seen), before = watched, settings()
    verdicts(model, [(X, Y)], PGD(ThreatModel("1/255"), 1))
    assert [set_so for set_so, _ in seen] == [before, ("ieee", "ieee")]


def test_an_evaluation_is_in_full_precision_throughout(
    watched: tuple[Callable[[Tensor], Tensor], list[tuple[tuple[str, str], bool]]],
) -> None:
    model, seen = watched
    autolora.evaluate(model, X, Y, attacks=["autoattack-fast"], progress=False)
    assert {set_so for set_so, _ in seen[1:]} == {("ieee", "ieee")}  # the first counts the classes
