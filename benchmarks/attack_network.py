"""How much the form of the attacked network matters: PGD-10 on one batch, as ratios within this run.

python benchmarks/attack_network.py [MODEL] [IMAGES]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch

from autolora.attacks import PGD
from autolora.models import build_model, evaluating
from autolora.models.folding import Folding
from autolora.threat import ThreatModel
from autolora.training.precision import autocast_for, resolve_precision

ROUNDS = 7


def main(name: str = "resnet20w24_cifar", images: int = 64) -> None:
    """Time the attack in each form, interleaved, and print medians and ratios."""
    device = torch.device("cpu")
    plain = build_model(name, classes=10, weights="none")
    size = plain.architecture.input_size[-1]
    x, y = torch.rand(images, 3, size, size), torch.randint(10, (images,))
    attack = PGD(ThreatModel("8/255"))
    folding = Folding(plain.backbone)
    precision = resolve_precision("auto", device)

    def run(channels_last: bool, kind: str, folded: bool) -> Callable[[], object]:
        def once() -> object:
            plain.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
            with evaluating(plain), autocast_for(kind, device)():
                if not folded:
                    return attack(plain, x, y)
                with plain.running(folding.network(plain.backbone)):
                    return attack(plain, x, y)

        return once

    forms = {
        "fp32": run(False, "fp32", False),
        "fp32, channels-last": run(True, "fp32", False),
        f"{precision}, channels-last": run(True, precision, False),
        f"{precision}, channels-last, folded": run(True, precision, True),
    }
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(ROUNDS):
        for form, once in forms.items():
            started = time.perf_counter()
            once()
            seconds[form].append(time.perf_counter() - started)
    slowest = median(seconds["fp32"])
    print(f"PGD-10 on {images} images of {size}x{size}, {name}, {torch.get_num_threads()} threads; median of {ROUNDS}")
    for form, times in seconds.items():
        print(f"  {form:34} {1000 * median(times) / images:7.2f} ms per image   {slowest / median(times):5.2f} x")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
