"""The random generators of a process, as plain values and tensors that a checkpoint can hold."""

from __future__ import annotations

import random
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

RandomState = dict[str, Any]
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
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
