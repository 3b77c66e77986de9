"""The random generators of a process, as plain values and tensors that a checkpoint can hold."""

from __future__ import annotations

import random
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

RandomState = dict[str, Any]
CUDA = 16  # bytes of a CUDA generator's state: seed and offset
NumpyState = tuple[str, NDArray[np.uint32], int, int, float]  # the generator of Mersenne twister that np.random uses


def random_state() -> RandomState:
    """Return where torch's generators (CPU and current CUDA device), Python's and numpy's stand."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = cast(NumpyState, np.random.get_state(legacy=True))
    state: RandomState = {
        "torch": torch.get_rng_state(),
        "python": (version, torch.tensor(words), gauss),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
    }
    # a run on the CPU leaves the GPUs of its machine alone
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return state | {"cuda": torch.cuda.get_rng_state()} if used else state


def restore_random_state(state: RandomState) -> None:
    """Let every generator go on from where it stood."""
    torch.set_rng_state(state["torch"])
    random.setstate(_python(state))
    np.random.set_state(_numpy(state))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def rehearse_random_state(state: RandomState) -> None:
    """Do to generators that nobody needs what :func:`restore_random_state` does to those that are used.

    Raises:
        ValueError: Or ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, if it cannot be done.
    """
    torch.Generator().set_state(state["torch"])
    random.Random().setstate(_python(state))
    np.random.RandomState().set_state(_numpy(state))
    if not 0 <= state["numpy"][2] <= len(state["numpy"][1]):  # numpy would read behind its words
        raise ValueError("position out of range")
    if "cuda" in state and (state["cuda"].dtype != torch.uint8 or state["cuda"].shape != (CUDA,)):
        raise ValueError("no state of a CUDA generator")


def _python(state: RandomState) -> tuple[int, tuple[int, ...], float | None]:
    version, words, gauss = state["python"]
    return version, tuple(words.tolist()), None if gauss is None else float(gauss)


def _numpy(state: RandomState) -> NumpyState:
    kind, keys, position, has_gauss, cached = state["numpy"]
    return kind, keys.numpy().astype(np.uint32), int(position), int(has_gauss), float(cached)
