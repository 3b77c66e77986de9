"""A training step against the plain one: the same weights and batch, in turns within one process.

The plain steps are eager float32 loops written from the papers and their released code (``plain_steps.py``), LoFT's on
the layers of ``peft``, which the development environment has. The share of the peak is that of the convolution timed
in the same run, in the precision of the package's step. With --compile the package's step is timed compiled too, and
what its first call took, which is the warm-up.

python benchmarks/train_step.py [--methods autolora loft] [--models resnet18_cifar packaged] [--batches 32 128]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from itertools import product
from time import perf_counter
from typing import Any

import torch
from measuring import Once, described, hardware_peak, in_turns, peak_memory, write
from plain_steps import PlainStep, plain_at, plain_autolora, plain_loft, plain_trades
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from autolora.experiments.config import RunConfig
from autolora.experiments.ingredients import build_method
from autolora.methods import AutoLoRa
from autolora.models import RobustModel, build_model
from autolora.models.counting import build_on_meta
from autolora.models.folding import Folding
from autolora.threat import ThreatModel
from autolora.training import Optimization, Step
from autolora.training.forms import Compile, forms_for
from autolora.training.precision import DTYPES, autocast_for, resolve_device, resolve_precision
from autolora.training.replicas import accelerator_for
from autolora.training.sharding import Shards
from autolora.training.update import Update

OURS, COMPILED = "autolora", "autolora compiled"
PLAIN = {
    "autolora": {"plain fp32": plain_autolora},
    "loft": {"peft fp32": plain_loft, "peft bf16 channels-last": partial(plain_loft, low=True)},
    "at": {"plain fp32": plain_at},
    "vanilla-rft": {"plain fp32": plain_trades},
}
# work of a step in forward passes: ten attack steps there and back to the image; a pass that learns counts three
PASSES = {"autolora": 26, "loft": 26, "at": 23, "vanilla-rft": 26}
CLASSES = 10
SURE = 0.6  # the branch's natural accuracy that both AutoLoRa loops take their weights from


def package_step(
    method: str,
    model: RobustModel,
    device: torch.device,
    precision: str,
    attack: str = "pgd-10",
    rank: int | None = None,
    compile: Compile = "off",
    batch: int = 0,
) -> PlainStep:
    """Return the package's own step, as the loop takes it: attack, loss, gradients, optimizer; may be compiled."""
    way = build_method(RunConfig(data="random", method=method, attack=attack, rank=rank), ThreatModel("8/255"))
    model.to(memory_format=torch.channels_last)
    way.prepare(model)
    way.begin_training(model.to(device))
    if isinstance(way, AutoLoRa):
        way.set_weights(SURE)
    optimizer = Optimization().optimizer([p for p in model.parameters() if p.requires_grad], 0.01)
    accelerator = accelerator_for(device, precision)
    step, prepared = accelerator.prepare(Step(model, way), optimizer)
    chosen, autocast = forms_for(model, compile, device, batch), autocast_for(precision, device)
    folding = Folding(model.backbone, in_place=chosen.captured is not None)
    update = Update(model, way, step, prepared, accelerator, autocast, folding, Shards(model), forms=chosen)
    return lambda x, y: float(torch.stack(list(update(x, y).values())).sum())


def forms(
    method: str,
    architecture: str,
    batch: int,
    device: torch.device,
    rank: int | None = None,
    compile: Compile = "off",
) -> dict[str, Callable[[], Once]]:
    """Return what makes a step of each form, by name; all of them begin with the same weights, and have one rank."""
    x, y = _batch(architecture, batch, device)
    precision = resolve_precision("auto", device)

    def make(form: str) -> Once:
        torch.manual_seed(0)
        model = build_model(architecture, classes=CLASSES, weights="none").to(device)
        if form in (OURS, COMPILED):
            mode = compile if form == COMPILED else "off"
            return partial(package_step(method, model, device, precision, rank=rank, compile=mode, batch=batch), x, y)
        plain = PLAIN[method][form]
        return partial(plain(model) if rank is None else plain(model, rank=rank), x, y)

    ours = (OURS,) if compile == "off" else (OURS, COMPILED)
    return {name: partial(make, name) for name in (*PLAIN[method], *ours)}


def compare(
    method: str,
    architecture: str,
    batch: int,
    options: argparse.Namespace,
    rank: int | None = None,
    compile: Compile = "off",
) -> dict[str, Any]:
    """Time a method's forms on a network, and print a line for each."""
    device = resolve_device(options.device)
    precision = resolve_precision("auto", device)
    steps = {name: make() for name, make in forms(method, architecture, batch, device, rank, compile).items()}
    if COMPILED in steps:
        now = perf_counter if options.clock == "wall" else with_children
        started = now()
        steps[COMPILED]()
        print(f"compiling ({compile}), with the first step: {now() - started:.0f} s")
    seconds = in_turns(steps, options.rounds, device, options.clock)
    x, _ = _batch(architecture, batch, device)
    speed = PASSES[method] * forward_operations(architecture, x) / seconds[OURS] / 1e9
    peak = hardware_peak(device, DTYPES.get(precision, torch.float32), options.clock)
    print(f"{method}{_ranked(rank)}, {architecture} at {x.shape[-1]}x{x.shape[-1]}, batches of {batch}, {precision}")
    for name, time in seconds.items():
        print(f"  {name:24} {time:8.3f} s  {batch / time:8.1f} images/s  {time / seconds[OURS]:5.2f} x {OURS}")
    share = speed / peak["convolution"]
    print(f"  {speed:.0f} G/s, {share:.0%} of the convolution's {peak['convolution']:.0f}", flush=True)
    case = {"method": method, "model": architecture, "batch": batch, "rank": rank}
    return case | {"seconds": seconds, "speed": speed, "peak": peak}


def with_children() -> float:
    """Return the processor time of this process, and of the compilers that it has started."""
    return sum(os.times()[:4])


def memory(method: str, architecture: str, batch: int, device: torch.device, rank: int | None = None) -> dict[str, Any]:
    """Measure the peak memory of each form in MiB, and print it."""
    needed = {
        name: peak_memory(make, device) for name, make in forms(method, architecture, batch, device, rank).items()
    }
    text = ", ".join(f"{name} {value:.0f}" for name, value in needed.items())
    print(f"MiB at the peak, {method}{_ranked(rank)}, {architecture}, batches of {batch}: {text}", flush=True)
    return {"method": method, "model": architecture, "batch": batch, "rank": rank, "mib": needed}


def _ranked(rank: int | None) -> str:
    return "" if rank is None else f" of rank {rank}"


def forward_operations(architecture: str, x: Tensor) -> int:
    """Count the operations of a forward pass, two per multiplication and addition."""
    model = build_model(architecture, classes=10, weights="none").to(x.device).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops()


def _batch(architecture: str, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    size = build_on_meta(architecture, classes=CLASSES).architecture.input_size[-1]
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(batch, 3, size, size, generator=generator), torch.arange(batch) % CLASSES
    return x.to(device), y.to(device)


def main() -> None:
    """Measure what is asked for, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(PLAIN), default=["autolora", "loft"])
    parser.add_argument("--models", nargs="+", default=["resnet18_cifar", "resnet20w24_cifar"])
    parser.add_argument("--batches", nargs="+", type=int, default=[32])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each form; 0: memory only")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--compile", choices=["off", "attack", "on"], default="off", help="time this form too")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", help="file for what was measured, and the machine")
    options = parser.parse_args()
    device = resolve_device(options.device)
    cases = list(product(options.methods, options.models, options.batches))
    # memory first: in a process that has computed, freed memory is used again, and does not show
    peaks = [memory(*case, device) for case in cases]
    print(f"{options.clock} time, {torch.get_num_threads()} threads, median of {options.rounds}")
    rows = [compare(*case, options, compile=options.compile) for case in cases] if options.rounds else []
    content = {"machine": described(device, resolve_precision("auto", device)), "clock": options.clock}
    write(options.json, content | {"memory": peaks, "rows": rows})


if __name__ == "__main__":
    main()
