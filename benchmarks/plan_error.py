"""How far the forecast of `autolora plan` is from the run that follows it, in one process.

With --clock cpu both count processor time, which other work on the machine hardly changes: what is left is the error of
the forecast itself, and not that the machine was busier in one of the two.

OMP_NUM_THREADS=1 python benchmarks/plan_error.py [DATA] [--epochs 2] [--method autolora] [--clock cpu]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from measuring import described, write

from autolora.experiments.config import RunConfig
from autolora.experiments.plan import run_plan
from autolora.experiments.planning.checking import check, read_record
from autolora.experiments.run import run
from autolora.training.precision import resolve_device, resolve_precision


def main() -> None:
    """Forecast, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--method", default="autolora")
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--json", help="file for what was measured, and the machine")
    options = parser.parse_args()
    if options.clock == "cpu":
        time.perf_counter = time.process_time  # by which both measure
    chosen = {name: getattr(options, name) for name in ("epochs", "method", "model", "image_size")}
    config = RunConfig(options.data, schedule="constant", track="none", **chosen)
    with tempfile.TemporaryDirectory() as folder:
        config = replace(config, out=str(Path(folder) / "run"))
        forecast, _ = run_plan(config, 3600.0, progress=False)
        result = run(config, progress=False)
        found = check(forecast, read_record(result.folder))
    print(f"{options.method} on {options.data}, {options.clock} time, {torch.get_num_threads()} threads")
    for title, told, took, error in (
        ("an epoch", found.epoch_seconds, found.record.epoch_seconds, found.epoch_error),
        ("the run", found.seconds, found.record.seconds, found.error),
    ):
        print(f"  {title:10} forecast {told:8.2f} s, recorded {took:8.2f} s: {error:+.1%}")
    device = resolve_device("auto")
    machine = described(device, resolve_precision("auto", device))
    write(options.json, {"machine": machine, "clock": options.clock, "check": found.as_json()})


if __name__ == "__main__":
    main()
