"""How many parameters the pairs of a run have: its options decide, counted here by hand on ResNet-20."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_runs import Finished
from torch import nn

from autolora.experiments.suites.grid import Job
from autolora.experiments.suites.leaderboard import leaderboard
from autolora.experiments.suites.measured import planned
from autolora.experiments.suites.metrics import metric
from autolora.experiments.suites.pairs import pairs_of
from autolora.experiments.suites.store import Store
from autolora.methods import METHODS
from autolora.methods.base import Method
from autolora.models import build_model
from autolora.models.bundle import save_bundle
from autolora.models.lowrank import Pairs

NAMED = ["layer1.0.conv1", "layer3.2.conv2"]  # 16 to 16 channels, and 64 to 64


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    with torch.random.fork_rng():
        return build_model("resnet20_cifar", classes=2, weights="none").backbone


@pytest.fixture(scope="module")
def convolutions(backbone: nn.Module) -> dict[str, tuple[int, int, int]]:
    """In and out channels and the side of the kernel, by name, the stem among them."""
    layers = {name: layer for name, layer in backbone.named_modules() if isinstance(layer, nn.Conv2d)}
    return {name: (layer.in_channels, layer.out_channels, layer.kernel_size[0]) for name, layer in layers.items()}


def loralib(into: int, out: int, side: int) -> int:
    """Return the entries of A, (r k, in k), and B, (out k, r k), at rank 1."""
    return side * side * (into + out)


def peft(into: int, out: int, side: int) -> int:
    """Return the entries of A, (r, in, k, k), and B, (out, r, 1, 1), at rank 1."""
    return side * side * into + out


CASES: list[tuple[dict[str, Any], Any, int, str]] = [
    ({"method": "autolora"}, loralib, 8, "blocks"),
    ({"method": "autolora", "rank": 4}, loralib, 4, "blocks"),
    ({"method": "autolora", "method_options": {"rank": 2}}, loralib, 2, "blocks"),
    ({"method": "autolora", "method_options": {"style": "peft"}}, peft, 8, "blocks"),
    ({"method": "autolora", "method_options": {"targets": "all"}}, loralib, 8, "all"),
    ({"method": "autolora", "method_options": {"targets": NAMED}}, loralib, 8, "named"),
    ({"method": "loft"}, peft, 8, "all"),
    ({"method": "loft", "rank": 3, "method_options": {"style": "loralib", "targets": NAMED}}, loralib, 3, "named"),
]


def by_hand(convolutions: Mapping[str, tuple[int, int, int]], each: Any, rank: int, where: str) -> int:
    chosen = {"all": set(convolutions), "blocks": set(convolutions) - {"conv1"}, "named": set(NAMED)}[where]
    return rank * sum(each(*convolutions[name]) for name in chosen)


@pytest.mark.parametrize(("options", "each", "rank", "where"), CASES)
def test_parameters_of_a_planned_run(
    options: dict[str, Any],
    each: Any,
    rank: int,
    where: str,
    convolutions: Mapping[str, tuple[int, int, int]],
    backbone: nn.Module,
) -> None:
    pairs = by_hand(convolutions, each, rank, where)
    extractor = sum(parameter.numel() for parameter in backbone.parameters())
    job = Job({"model": "resnet20_cifar", "seed": 0, "data": "d", **options})
    share = planned(job, metric("lora_over_total_percent"))
    assert share == pytest.approx(100 * pairs / (extractor + pairs))


@pytest.mark.parametrize(("options", "each", "rank", "where"), CASES)
def test_parameters_of_a_listed_run(
    options: dict[str, Any],
    each: Any,
    rank: int,
    where: str,
    convolutions: Mapping[str, tuple[int, int, int]],
    tmp_path: Path,
) -> None:
    folder = Finished(Store(tmp_path))(Job({"seed": 0, "data": "d", **options}, title="run"), 0.5)
    with torch.random.fork_rng():
        model = build_model("resnet20_cifar", classes=2, weights="none")
    save_bundle(model, folder / "model", ["a", "b"], {})
    (entry,) = leaderboard(tmp_path)
    assert entry.low_rank == by_hand(convolutions, each, rank, where)


def test_a_method_without_pairs_has_none(tmp_path: Path) -> None:
    assert pairs_of({"method": "at"}) is None and pairs_of({"method": "of-a-plugin-that-is-not-here"}) is None
    folder = Finished(Store(tmp_path))(Job({"seed": 0, "data": "d", "method": "at"}, title="run"), 0.5)
    with torch.random.fork_rng():
        save_bundle(build_model("resnet20_cifar", classes=2, weights="none"), folder / "model", ["a", "b"], {})
    (entry,) = leaderboard(tmp_path)
    assert entry.low_rank is None


def test_a_rank_alone_makes_no_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method of a user's own may have a rank of something else."""
    monkeypatch.setitem(METHODS, "ranked", type("Ranked", (Method,), {"rank": 3, "loss": lambda *_: {}}))
    assert pairs_of({"method": "ranked"}) is None


def test_rank_style_and_targets_make_pairs_whatever_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method of a user's own need not let the scale and the start of its pairs be chosen."""
    options = {"rank": 3, "style": "peft", "targets": "all", "loss": lambda *_: {}}
    monkeypatch.setitem(METHODS, "paired", type("Paired", (Method,), options))
    assert pairs_of({"method": "paired", "rank": 2}) == Pairs(2, "peft", "all")
