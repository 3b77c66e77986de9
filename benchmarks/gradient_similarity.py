"""What gradient similarity costs, as ratios to an epoch of training with PGD-10 on the same images, within one run.

Processor time is compared, which a busy machine changes less than it does the clock.

OMP_NUM_THREADS=1 python benchmarks/gradient_similarity.py [MODEL] [IMAGES]
"""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from autolora.attacks import PGD
from autolora.methods import METHODS
from autolora.models import build_model
from autolora.schedules import Constant
from autolora.threat import ThreatModel
from autolora.training import Checkpoints, fit
from autolora.training.similarity import Estimate, GradientSimilarity

BATCH = 32
ESTIMATES: tuple[Estimate, ...] = ("image", "batch")
NAMES = ("vanilla-rft", "twins-trades", "autolora", "loft")


def times(name: str, architecture: str, images: int, folder: Path) -> list[float]:
    """Return the seconds of an epoch, and of measuring by image and by batch after it; the first epoch warms up."""
    model = build_model(architecture, classes=10, weights="none", image_size=32)
    method = METHODS[name](PGD(ThreatModel("8/255")))
    data = TensorDataset(torch.rand(images, 3, 32, 32), torch.arange(images) % 10)
    loader: DataLoader[Any] = DataLoader(data, BATCH)
    one: DataLoader[Any] = DataLoader(TensorDataset(*data[:1]), 1)  # validation is no part of the comparison
    probes = [GradientSimilarity(model, method, loader, images=images, estimate=estimate) for estimate in ESTIMATES]
    marks: list[float] = []

    def measure(epoch: int) -> dict[str, float]:
        marks[:] = [*marks[-1:], time.process_time()]
        for probe in probes:
            probe(epoch)
            marks.append(time.process_time())
        return {}

    fit(
        model,
        method,
        loader,
        one,
        Constant(0.01),
        Accelerator(cpu=True),
        epochs=2,
        val_attack=PGD(ThreatModel("8/255"), steps=1),
        checkpoints=Checkpoints(folder),
        probe=measure,
        progress=False,
    )
    return [after - before for before, after in pairwise(marks)]


def main(architecture: str = "resnet20_cifar", images: int = 64) -> None:
    """Print milliseconds per image and ratios, method by method."""
    print(f"{images} images of 32x32, {architecture}, {torch.get_num_threads()} threads; processor time")
    print(f"  {'method':14} {'training':>12} {'similarity per image':>28} {'per batch of ' + str(BATCH):>28}")
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            epoch, *measured = times(name, architecture, images, Path(folder))
        cells = "".join(f" {1000 * seconds / images:13.1f} ms ({seconds / epoch:7.2f} x)" for seconds in measured)
        print(f"  {name:14} {1000 * epoch / images:9.1f} ms {cells}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
