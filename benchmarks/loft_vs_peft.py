"""LoFT's step against the same step on the layers of `peft`: the same weights and batch, in turns within one process.

On PEFT's layers every adapted convolution is followed by two more, in all passes of a step; here the low-rank update is
computed once per batch, and one network is attacked. The forms are those of `train_step.py`, at several ranks.

python benchmarks/loft_vs_peft.py [--ranks 4 8 16] [--models resnet18_cifar resnet20w24_cifar] [--batch 32]
"""

from __future__ import annotations

import argparse
from itertools import product

import torch
from measuring import described, write
from train_step import compare, memory

from autolora.training.precision import resolve_device, resolve_precision

METHOD = "loft"


def main() -> None:
    """Measure every rank on every network, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument("--models", nargs="+", default=["resnet18_cifar", "resnet20w24_cifar"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each form; 0: memory only")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", help="file for what was measured, and the machine")
    options = parser.parse_args()
    device = resolve_device(options.device)
    cases = list(product(options.models, options.ranks))
    # memory first: in a process that has computed, freed memory is used again, and does not show
    peaks = [memory(METHOD, model, options.batch, device, rank) for model, rank in cases]
    print(f"{options.clock} time, {torch.get_num_threads()} threads, median of {options.rounds}")
    rows = [compare(METHOD, model, options.batch, options, rank) for model, rank in cases] if options.rounds else []
    content = {"machine": described(device, resolve_precision("auto", device)), "clock": options.clock}
    write(options.json, content | {"memory": peaks, "rows": rows})


if __name__ == "__main__":
    main()
