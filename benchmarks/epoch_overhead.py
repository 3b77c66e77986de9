"""How much of an epoch is not training: the accuracy that sets lambda, robust validation, and the checkpoint.

A run of AutoLoRa on a named data set, with the defaults of ``autolora fit``; the parts are timed where they happen.

python benchmarks/epoch_overhead.py [DATA] [--epochs 2] [--measured-on epoch] [--val-fraction 0.05]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any

from measuring import described, write

from autolora import finetune
from autolora.training.epoch import Epoch
from autolora.training.precision import resolve_device, resolve_precision
from autolora.training.session import Session

PARTS = {"lambda": (Epoch, "_begin"), "training": (Epoch, "_train"), "checkpoint": (Session, "_save")}


def timed(seconds: dict[str, list[float]], name: str, function: Callable[..., Any], clock: Callable[[], float]) -> Any:
    """Return the function with a stopwatch."""

    @wraps(function)
    def stopped(*arguments: Any, **options: Any) -> Any:
        started = clock()
        try:
            return function(*arguments, **options)
        finally:
            seconds[name].append(clock() - started)

    return stopped


def main() -> None:
    """Train, and print the share of each part of an epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--measured-on", default="augmented", choices=["augmented", "clean", "epoch"])
    parser.add_argument("--val-fraction", type=float, help="share of the training images for validation")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--json", help="file for what was measured, and the machine")
    options = parser.parse_args()
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = defaultdict(list)
    for name, (owner, method) in PARTS.items():
        setattr(owner, method, timed(seconds, name, getattr(owner, method), clock))
    setattr(Epoch, "run", timed(seconds, "epoch", Epoch.run, clock))  # noqa: B010 - a method is replaced
    with tempfile.TemporaryDirectory() as folder:
        result = finetune(
            options.data,
            epochs=options.epochs,
            method_options={"measured_on": options.measured_on},
            val_fraction=options.val_fraction,
            out=f"{folder}/run",
            progress=False,
        )
    last = {name: times[-1] for name, times in seconds.items()}
    whole = last["epoch"] + last["checkpoint"]
    last["validation"] = last["epoch"] - last["lambda"] - last["training"]
    images = {split: result.content["data"][split] for split in ("train", "val")}
    print(f"the last of {options.epochs} epochs on {options.data}, measured on {options.measured_on}: {whole:.2f} s")
    print(f"  {images['train']} training and {images['val']} validation images")
    for name in ("training", "lambda", "validation", "checkpoint"):
        print(f"  {name:12} {last[name]:8.2f} s  {last[name] / whole:6.1%}")
    print(f"  all but training {1 - last['training'] / whole:6.1%}")
    device = resolve_device("auto")
    write(
        options.json,
        {"machine": described(device, resolve_precision("auto", device)), "images": images, "seconds": last},
    )


if __name__ == "__main__":
    main()
