"""Verdicts in float32: no GPU is needed to see whether it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
CUDNN: Any = torch.backends.cudnn  # whose module type knows nothing of operations
EXACT = (False, False)

Watched = tuple[Callable[[Tensor], Tensor], list[tuple[bool, bool]]]


def settings() -> tuple[bool, bool]:
    """Return whether convolutions and products of float32 may be rounded to TF32."""
    return CUDNN.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def rounded() -> Iterator[None]:
    """As on a GPU whose owner prefers speed."""
    before = settings()
    CUDNN.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    CUDNN.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def watched(rounded: None) -> Watched:
    """A model, and how things were set at each of its passes."""
    seen: list[tuple[bool, bool]] = []

    def model(x: Tensor) -> Tensor:
        seen.append(settings())
        with torch.backends.cudnn.flags(enabled=False):  # which reads all settings, and complains if they contradict
            return x.flatten(1)[:, :2]

    return model, seen


def test_it_lasts_as_long_as_it_is_wanted(rounded: None) -> None:
    with pytest.raises(KeyError), full_precision():
        assert settings() == EXACT
        raise KeyError
    assert settings() == (True, True)


@pytest.mark.skipif(not hasattr(CUDNN, "conv"), reason="torch before 2.9 has no such names")
def test_it_works_where_the_newer_names_have_been_used(monkeypatch: pytest.MonkeyPatch) -> None:
    before = CUDNN.conv.fp32_precision
    try:
        CUDNN.conv.fp32_precision = "ieee"
        CUDNN.rnn.fp32_precision = "tf32"
        with pytest.raises(RuntimeError):
            settings()
        with full_precision():
            assert CUDNN.conv.fp32_precision == CUDNN.rnn.fp32_precision == "ieee"
        assert (CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision) == ("ieee", "tf32")
    finally:
        CUDNN.conv.fp32_precision = before
        CUDNN.rnn.fp32_precision = before
    settings()


def test_a_verdict_is_in_full_precision_and_a_search_as_it_was(watched: Watched) -> None:
    model, seen = watched
    verdicts(model, [(X, Y)], PGD(ThreatModel("1/255"), 1))
    assert seen == [(True, True), EXACT]


def test_an_evaluation_is_in_full_precision_throughout(watched: Watched) -> None:
    model, seen = watched
    autolora.evaluate(model, X, Y, attacks=["autoattack-fast"], progress=False)
    assert set(seen[1:]) == {EXACT}  # the first counts the classes
