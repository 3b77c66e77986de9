"""What the benchmarks share: taking turns, peak memory, the hardware's own peak, and the machine in words."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from autolora.experiments.environment import environment

Once = Callable[[], object]


def in_turns(forms: Mapping[str, Once], rounds: int, device: torch.device, clock: str = "wall") -> dict[str, float]:
    """Time functions in alternation, after a round of warm-up; return the median seconds of each.

    Args:
        forms: What to time, by name.
        rounds: How often.
        device: Where they compute; a GPU is waited for.
        clock: ``"wall"``, or ``"cpu"`` for processor time, which other work on the machine hardly changes; with one
            thread on a quiet machine the two are the same.
    """
    now = time.process_time if clock == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds + 1):
        for name, once in forms.items():
            _wait(device)
            started = now()
            once()
            _wait(device)
            if number:
                seconds[name].append(now() - started)
    return {name: median(times) for name, times in seconds.items()}


def peak_memory(make: Callable[[], Once], device: torch.device) -> float:
    """Return the MiB that making a function and calling it twice take at their peak.

    On a CPU that is memory of a child process, beyond what this process has; call it before anything is computed.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        once = make()
        for _ in range(2):
            once()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _report(make, write)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return float(text)


def hardware_peak(device: torch.device, dtype: torch.dtype, clock: str = "wall") -> dict[str, float]:
    """Return operations per second (1e9) of a matrix product and of a 3x3 convolution, multiply and add counted as two.

    The convolution has 128 channels on 32 images of 16x16, as in the middle of ResNet-18; the product is of 2048.
    """
    matrix = torch.randn(2048, 2048, device=device, dtype=dtype)
    images = torch.randn(32, 128, 16, 16, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False, device=device, dtype=dtype)
    layer = layer.to(memory_format=torch.channels_last).requires_grad_(False)

    def often(once: Once) -> Once:
        return lambda: [once() for _ in range(10)]

    seconds = in_turns(
        {"product": often(lambda: matrix @ matrix), "convolution": often(lambda: layer(images))}, 5, device, clock
    )
    work = {"product": 2 * 2048**3, "convolution": 2 * 32 * 16 * 16 * 128 * 128 * 9}
    return {name: 10 * work[name] / seconds[name] / 1e9 for name in work}


def described(device: torch.device, precision: str) -> dict[str, Any]:
    """Return the machine and the versions, for the JSON of a benchmark."""
    return environment(device, precision) | {"processor": _processor()}


def write(path: str | None, content: Mapping[str, Any]) -> None:
    """Write what was measured as JSON, if a file was named."""
    if path is not None:
        Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _report(make: Callable[[], Once], write: int) -> None:
    """Measure, in the child process, which ends here."""
    before = _resident()
    once = make()
    for _ in range(2):
        once()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    os.write(write, str(peak - before).encode())
    os._exit(0)


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
