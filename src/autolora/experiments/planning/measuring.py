"""Seconds and peak memory of work on batches: one of warm-up, then the median of three, of fewer if they are long."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from threading import Event, Thread
from types import TracebackType

import psutil
import torch
from torch import Tensor

Batches = Iterable[tuple[Tensor, Tensor]]  # images (N, C, H, W) in [0, 1] and labels (N,)
Work = Callable[[Tensor, Tensor], object]
REPEATS = 3
ENOUGH = 3.0  # seconds after which work that is long in itself is not repeated
EVERY = 0.02  # seconds between two looks at the memory of the process


@dataclass(frozen=True)
class Cost:
    """What work on batches takes.

    Args:
        each: Seconds per image.
        mib: Peak memory meanwhile, in MiB: what the process holds, on a GPU what its tensors take there.
    """

    each: float
    mib: float


def cost_of(batches: Batches, work: Work, device: torch.device, *, least: int = 1) -> Cost:
    """Measure one piece of work; see :func:`costs_in_turns`."""
    (cost,) = costs_in_turns(batches, [work], device, least=least)
    return cost


def costs_in_turns(
    batches: Batches, works: Sequence[Work], device: torch.device, *, least: int = 1
) -> tuple[Cost, ...]:
    """Measure pieces of work on the first batches, of which one is a warm-up; drawing a batch is part of the first.

    They take turns on every batch, so that what else happens on the machine happens to all of them.

    Args:
        batches: At least one batch; where there are fewer, they come again.
        works: What is done with a batch.
        device: Where it computes; a GPU is waited for.
        least: How often it is measured even if it is long; at most three times.

    Returns:
        Their costs, with the peak memory of all of them.
    """
    drawn, seconds, spent = again_and_again(batches), [list[float]() for _ in works], 0.0
    with PeakMemory(device) as peak:
        for number in range(REPEATS + 1):
            if number > least and spent > ENOUGH:
                break
            started = time.perf_counter()
            x, y = next(drawn)
            for times, work in zip(seconds, works, strict=True):
                work(x, y)
                wait(device)
                ended = time.perf_counter()
                times.append((ended - started) / len(y))
                spent, started = spent + ended - started, ended
    drawn.close()
    return tuple(Cost(median(times[1:]), peak.mib) for times in seconds)


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was told; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """A context whose peak memory is known afterwards, as ``mib``.

    On a CPU a thread looks at the process again and again, since the system keeps a peak only of the whole process.

    Args:
        device: Whose memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.mib = device, 0.0
        self._done, self._process = Event(), psutil.Process()
        self._watch = Thread(target=self._look, daemon=True)

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            self.mib = torch.cuda.max_memory_allocated(self.device) / 2**20
            return
        self._done.set()
        self._watch.join()

    def _look(self) -> None:
        while True:
            ended = self._done.wait(EVERY)
            self.mib = max(self.mib, self._process.memory_info().rss / 2**20)
            if ended:
                return


def again_and_again(batches: Batches) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Yield batches, from the beginning when there are no more."""
    while True:
        yield from batches
