"""What training costs against images, PGD steps, image size, parameters and processes.

Every row is the time of a step of AutoLoRa, as the loop takes it, in turns within one process; a line through the rows
gives the cost of one more, and what is fixed. Processes are started with torchrun, and share one batch.

python benchmarks/scaling.py [--only images steps sizes models processes] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import linear_regression
from typing import Any

import torch
from measuring import Once, described, in_turns, write
from train_step import package_step

from autolora.models import build_model
from autolora.training.precision import resolve_device, resolve_precision

BASE: dict[str, Any] = {"images": 32, "steps": 10, "size": 32, "model": "resnet20_cifar"}
CURVES: dict[str, Sequence[Any]] = {
    "images": (8, 16, 32, 64),
    "steps": (1, 2, 5, 10),
    "size": (16, 32, 64),
    "model": ("resnet20_cifar", "resnet20w24_cifar", "resnet20w32_cifar"),
}
PROCESSES = (1, 2)
RANK = "RANK"  # of a process that torchrun has started


def step_of(device: torch.device, *, images: int, steps: int, size: int, model: str) -> Once:
    """Return a step on random images."""
    torch.manual_seed(0)
    network = build_model(model, classes=10, weights="none", image_size=size)
    step = package_step("autolora", network, device, resolve_precision("auto", device), f"pgd-{steps}")
    x, y = torch.rand(images, 3, size, size, device=device), torch.arange(images, device=device) % 10
    return partial(step, x, y)


def curve(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time a step for each value of one quantity, and print the times and the line through them."""
    device, values = resolve_device(options.device), CURVES[name]
    seconds = in_turns(
        {str(value): step_of(device, **(BASE | {name: value})) for value in values},
        options.rounds,
        device,
        options.clock,
    )
    print(f"{name}, with {', '.join(f'{key} {value}' for key, value in BASE.items() if key != name)}:")
    for value, taken in seconds.items():
        print(f"  {value:>18} {1000 * taken:9.1f} ms")
    if name == "model":
        return {"of": name, "seconds": seconds}
    amounts, taken = [value**2 if name == "size" else value for value in values], list(seconds.values())
    line = linear_regression(amounts, taken)
    off = max(abs((line.intercept + line.slope * x) / y - 1) for x, y in zip(amounts, taken, strict=True))
    unit = {"images": "image", "steps": "attack step", "size": "pixel of side x side"}[name]
    print(f"  {1000 * line.slope:.3f} ms per {unit} and {1000 * line.intercept:.1f} ms fixed; off by {off:.0%} at most")
    return {"of": name, "seconds": seconds, "slope": line.slope, "fixed": line.intercept, "off": off}


def processes(options: argparse.Namespace) -> dict[str, Any]:
    """Start this file with torchrun, and print images per second of one batch that all processes share."""
    found = {}
    for count in PROCESSES:
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "seconds.json"
            launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
            own = [__file__, "--only", "processes", "--rounds", str(options.rounds), "--json", str(answer)]
            threads = str(max(1, torch.get_num_threads() // count))
            command = [*launcher, *own, "--device", options.device]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": threads})
            found[count] = json.loads(answer.read_text(encoding="utf-8"))["seconds"]
        speed, ratio = BASE["images"] / found[count], found[PROCESSES[0]] / found[count]
        print(f"processes {count}, {threads} threads each: {speed:7.1f} images/s, {ratio:.2f} x one", flush=True)
    return {"of": "processes", "seconds": found}


def as_one_of_many(options: argparse.Namespace) -> None:
    """Time this process's share of a batch; the first writes it down."""
    device = resolve_device(options.device)
    from autolora.experiments.processes import disband, joined

    with joined(options.device) as company:
        once = step_of(device, **(BASE | {"images": BASE["images"] // company.count}))
        seconds = in_turns({"step": once}, options.rounds, device)["step"]
        if company.first:
            write(options.json, {"seconds": seconds})
        company.meet()
    disband()


def main() -> None:
    """Measure what is asked for, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*CURVES, "processes"], default=[*CURVES, "processes"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="of all but processes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", help="file for what was measured, and the machine")
    options = parser.parse_args()
    if RANK in os.environ:
        as_one_of_many(options)
        return
    print(f"AutoLoRa's step, {options.clock} time, {torch.get_num_threads()} threads, median of {options.rounds}")
    rows = [curve(name, options) if name in CURVES else processes(options) for name in options.only]
    device = resolve_device(options.device)
    write(options.json, {"machine": described(device, resolve_precision("auto", device)), "rows": rows})


if __name__ == "__main__":
    main()
