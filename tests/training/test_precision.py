"""Devices and precisions that do not exist are refused: none is taken for another in silence."""

from __future__ import annotations

import pytest
import torch

from autolora.errors import InputError
from autolora.training.precision import resolve_device, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:1", "mps", "Cpu", ""])
def test_an_unknown_device_is_not_the_cpu(name: str) -> None:
    with pytest.raises(InputError, match=f"device='{name}' is not one of auto, cpu, cuda"):
        resolve_device(name)


def test_devices_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("cpu") == resolve_device("auto") == CPU
    with pytest.raises(InputError, match="torch sees no CUDA device here"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("cuda") == resolve_device("auto") == torch.device("cuda")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="precision='half' is not one of auto, fp32, bf16, fp16"):
        resolve_precision("half", CPU)
    with pytest.raises(InputError, match="needs a CUDA device"):
        resolve_precision("fp16", CPU)
    assert resolve_precision("fp16", torch.device("cuda")) == "fp16"
    assert resolve_precision("auto", CPU) in ("fp32", "bf16")
