"""The package's steps against loops written from the papers' released code, which the benchmark times beside them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from timm.models import build_model_with_cfg

from autolora.models import RobustModel
from autolora.models.backbones import split
from autolora.models.resnet_cifar import CifarResNet

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STEPS = {"at": 3, "vanilla-rft": 3, "autolora": 3, "loft": 1}  # PEFT draws other pairs, which show from the second step


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield import_module("train_step")
    sys.path.remove(str(BENCHMARKS))


def model() -> RobustModel:
    torch.manual_seed(0)
    return split(build_model_with_cfg(CifarResNet, "resnet20_cifar", False, depth=8, width=8), classes=3)


@pytest.mark.parametrize("method", STEPS)
def test_step_by_step_the_losses_are_those_of_the_released_code(benchmark: ModuleType, method: str) -> None:
    if method == "loft":
        pytest.importorskip("peft")
    plain = next(iter(benchmark.PLAIN[method].values()))(model())
    ours = benchmark.package_step(method, model(), torch.device("cpu"), "fp32")
    generator = torch.Generator().manual_seed(1)
    for number in range(STEPS[method]):
        x, y = torch.rand(12, 3, 8, 8, generator=generator), torch.arange(12) % 3
        losses = []
        for step in (plain, ours):
            torch.manual_seed(number)  # of the attack's start
            losses.append(step(x, y))
        assert losses[1] == pytest.approx(losses[0], rel=2e-3), f"in step {number}"
