"""Where and in which precision to compute."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch

from autolora.errors import InputError
from autolora.schedules.schedule import check_choice

Autocast = Callable[[], AbstractContextManager[object]]
DEVICES = ("auto", "cpu", "cuda")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: If it is none of them, or CUDA is asked for and not there.
    """
    check_choice("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: torch sees no CUDA device here; use --device cpu, or auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def resolve_precision(name: str, device: torch.device) -> str:
    """Return ``fp32``, ``bf16`` or ``fp16``; ``auto`` is bf16 where the hardware multiplies it, else fp32.

    Raises:
        InputError: If it is none of them, or fp16 is asked for on a CPU: its narrow range needs the loss scaling that
            only CUDA has.
    """
    check_choice("precision", name, ("auto", "fp32", *DTYPES))
    if name == "fp16" and device.type != "cuda":
        raise InputError("precision=fp16 needs a CUDA device; on a CPU use --precision bf16, fp32, or auto")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # torch has no public question for this; without the instruction bf16 is emulated, and slower than fp32
    hardware = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if hardware() else "fp32"


def autocast_for(precision: str, device: torch.device) -> Autocast:
    """Return the context in which attacks and losses compute; master weights and losses stay in float32."""
    if precision == "fp32":
        return nullcontext
    return partial(torch.autocast, device.type, dtype=DTYPES[precision])
