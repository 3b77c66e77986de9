"""What a training step of each method costs: attack, loss and update on the same batch, as ratios within this run.

The methods take turns. Processor time is counted, not wall time, so that other work on the machine matters little; on
one thread the two are the same.

OMP_NUM_THREADS=1 python benchmarks/method_steps.py [MODEL] [BATCH]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch

from autolora.experiments.config import RunConfig
from autolora.experiments.ingredients import build_method
from autolora.methods import METHODS, Batch
from autolora.models import build_model, evaluating
from autolora.models.folding import Folding
from autolora.threat import ThreatModel
from autolora.training import Optimization
from autolora.training.precision import autocast_for, resolve_precision
from autolora.training.step import Step

ROUNDS = 7
BESIDE = "at"


def stepper(name: str, architecture: str, batch: int) -> Callable[[], None]:
    """Return a function that trains one step of a method, as the loop does."""
    torch.manual_seed(0)
    device = torch.device("cpu")
    model = build_model(architecture, classes=5, weights="none").to(memory_format=torch.channels_last)
    size = model.architecture.input_size[-1]
    x, y = torch.rand(batch, 3, size, size), torch.randint(5, (batch,))
    method = build_method(RunConfig(data="random", method=name), ThreatModel("8/255"))
    method.prepare(model)
    method.begin_training(model)
    optimizer = Optimization().optimizer([p for p in model.parameters() if p.requires_grad], 0.01)
    step, folding = Step(model, method), Folding(model.backbone)
    autocast = autocast_for(resolve_precision("auto", device), device)

    def once() -> None:
        with evaluating(model), autocast(), model.running(folding.network(model.backbone)):
            x_adv = method.attack(model, x, y)
        with autocast():
            loss = torch.stack(list(step(Batch(x, y, x_adv)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return once


def main(architecture: str = "resnet20_cifar", batch: int = 64) -> None:
    """Time every method, and print medians and ratios."""
    steps = {name: stepper(name, architecture, batch) for name in METHODS}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS + 1):
        for name, once in steps.items():
            started = time.process_time()
            once()
            if number:  # the first is a warm-up
                seconds[name].append(time.process_time() - started)
    low = resolve_precision("auto", torch.device("cpu"))
    print(f"{architecture}, batches of {batch}, {low}, {torch.get_num_threads()} threads; median of {ROUNDS}")
    beside = median(seconds[BESIDE])
    for name, times in sorted(seconds.items(), key=lambda item: median(item[1])):
        print(
            f"  {name:14} {1000 * median(times) / batch:7.2f} ms per image   {median(times) / beside:5.2f} x {BESIDE}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
