"""The same numbers every time: what torch can be asked for, and what makes two runs of one seed differ otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Return a context in which torch, if that is wanted, computes deterministically, and complains where it cannot.

    On a GPU this costs time. On a CPU torch's results are the same every time anyhow.
    """
    # read by cuBLAS when it is first used, which may be in a run before the one that asks for determinism
    os.environ.setdefault(WORKSPACE, ":4096:8")
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def sources_of_difference(device: torch.device, workers: int) -> list[str]:
    """Say what can make another run of the same configuration and images end with other numbers, a line each."""
    sources = [
        f"another number of threads than {torch.get_num_threads()}: sums are divided otherwise",
        "another version of torch, or another kind of processor: other kernels round otherwise",
    ]
    if workers:
        sources.append(f"another number of workers than {workers}: each draws augmentations of its own")
    if device.type == "cuda" and not torch.are_deterministic_algorithms_enabled():
        sources += [
            "GPU kernels that add in no fixed order, in backward passes above all; --deterministic replaces them",
            "cuDNN, which may choose another algorithm for a convolution; --deterministic fixes it",
        ]
    return sources
