"""float32 that is float32: GPUs from Ampere on round what they convolve to TF32, ten bits, unless told not to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Return a context, or a decorator, in which convolutions and products of float32 are computed in float32.

    A verdict of this package is one of the model itself. torch's default for convolutions rounds them.
    """
    settings = _settings()
    before = [getattr(owner, name) for owner, name, _ in settings]
    for owner, name, exact in settings:
        setattr(owner, name, exact)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(settings, before, strict=True):
            setattr(owner, name, value)


def _settings() -> list[tuple[Any, str, Any]]:
    """Return where torch keeps them, under which name, and the value for full precision."""
    cudnn: Any = torch.backends.cudnn
    older = [(owner, "allow_tf32", False) for owner in (cudnn, torch.backends.cuda.matmul)]
    try:
        for owner, name, _ in older:
            getattr(owner, name)
    except RuntimeError:  # somebody has set them by the names of torch 2.9, and the two must not be mixed
        owners = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)
        return [(owner, "fp32_precision", "ieee") for owner in owners]
    return older
