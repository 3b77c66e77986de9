"""AutoAttack here against the authors' package: time and verdicts, on the same images, weights and seeds.

The two take turns, so that what the machine does meanwhile hits both; ratios are of medians. Every step from the plain
network to the form that ``autolora evaluate`` attacks is timed too with --steps-to-form. With --alone each attack runs
by itself on all images.

python benchmarks/autoattack.py MODEL --data DATA [--weights FILE] [--eps 8/255] [--norm Linf] [--images 100]
    [--rounds 3] [--attacks apgd-ce apgd-t fab-t square] [--alone] [--steps-to-form] [--processor-time] [--json FILE]

It needs the package (pip install pyautoattack).
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pyautoattack import AutoAttack as Reference
from torch import Tensor

from autolora.attacks.autoattack.ensemble import STANDING, AutoAttack, Part
from autolora.attacks.victim import Victim
from autolora.evaluation import Score
from autolora.experiments.evaluating import sample
from autolora.experiments.searching import victim_of
from autolora.experiments.subject import find_subject
from autolora.models import RobustModel
from autolora.threat import ThreatModel

REFERENCE, USED = "the authors' package", "channels-last, folded, low precision"
PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")


@dataclass(frozen=True)
class Only(AutoAttack):
    """AutoAttack with some of its parts."""

    names: tuple[str, ...] = PARTS

    def parts(self) -> dict[str, Part]:
        """Return those parts."""
        return {name: part for name, part in super().parts().items() if name in self.names}


@dataclass(frozen=True)
class Bench:
    """A model, images in [0, 1] with labels, and a threat model, for both packages."""

    model: RobustModel
    x: Tensor
    y: Tensor
    threat: ThreatModel
    clock: Callable[[], float]

    def reference(self, names: Sequence[str], seed: int) -> Tensor:
        """Run the authors' attacks, and say which images still stand (N,)."""
        attack = Reference(self.model, norm=self.threat.norm, eps=self.threat.radius, seed=seed, device=self.x.device)
        attack.attacks_to_run, attack.verbose = list(names), False
        x_adv, _ = attack.run_standard_evaluation(self.x, self.y, batch_size=len(self.x))
        with torch.no_grad():
            return self.model(x_adv).argmax(dim=1) == self.y

    def ours(self, names: Sequence[str], seed: int, victim: Victim) -> Tensor:
        """Run our attacks on a form of the network, and say which images still stand (N,)."""
        attack = Only(self.threat, names=tuple(names))
        return attack(victim, self.x, self.y, seed=seed).by == STANDING

    def forms(self) -> dict[str, Victim]:
        """Ways to search, from the plain network to the form that is used; the first word says the memory format."""
        return {
            "contiguous": Victim(self.model),
            "channels-last": Victim(self.model),
            "channels-last, folded": victim_of(self.model, "fp32"),
            USED: victim_of(self.model),
        }

    @contextmanager
    def laid_out(self, form: str) -> Iterator[None]:
        """Hold the weights in a form's memory format."""
        self.model.to(memory_format=torch.contiguous_format if form.startswith("contiguous") else torch.channels_last)
        try:
            yield
        finally:
            self.model.to(memory_format=torch.contiguous_format)


def timed(run: Callable[[], Tensor], clock: Callable[[], float]) -> tuple[float, Tensor]:
    """Return seconds and result."""
    started = clock()
    standing = run().cpu()  # on a GPU, this waits for the result
    return clock() - started, standing


def race(bench: Bench, names: Sequence[str], rounds: int, *, every_form: bool) -> dict[str, Any]:
    """Let the package and our forms take turns; print and return medians, ratios and agreement."""
    with bench.laid_out(USED):  # folded weights take the memory format that they are made in
        forms = bench.forms()
    if not every_form:
        forms = {USED: forms[USED]}
    seconds: dict[str, list[float]] = {REFERENCE: [], **{form: [] for form in forms}}
    stands: dict[str, list[Tensor]] = {name: [] for name in seconds}
    for seed in range(rounds):
        for name in seconds:
            took, standing = _turn(bench, name, names, seed, forms)
            seconds[name].append(took)
            stands[name].append(standing)
            print(f"    round {seed + 1}: {name}: {took:.1f} s, {int(standing.sum())} stand", flush=True)
    return {name: _summary(name, seconds, stands) for name in seconds}


def _turn(bench: Bench, name: str, names: Sequence[str], seed: int, forms: dict[str, Victim]) -> tuple[float, Tensor]:
    if name == REFERENCE:
        return timed(lambda: bench.reference(names, seed), bench.clock)
    with bench.laid_out(name):
        return timed(lambda: bench.ours(names, seed, forms[name]), bench.clock)


def _summary(name: str, seconds: dict[str, list[float]], stands: dict[str, list[Tensor]]) -> dict[str, Any]:
    same = [
        (ours == theirs).float().mean().item() for ours, theirs in zip(stands[name], stands[REFERENCE], strict=True)
    ]
    row = {
        "seconds": [round(took, 3) for took in seconds[name]],
        "times_faster": round(median(seconds[REFERENCE]) / median(seconds[name]), 3),
        "standing": [int(standing.sum()) for standing in stands[name]],
        "agreement": [round(share, 4) for share in same],
    }
    score = Score(row["standing"][0], len(stands[name][0]))
    print(
        f"  {name:42} {median(row['seconds']):8.1f} s  {row['times_faster']:5.2f} x   stand {row['standing']} of "
        f"{score.total}   same verdict {', '.join(f'{share:.1%}' for share in same)}",
        flush=True,
    )
    return row


def options() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--norm", default="Linf", choices=["Linf", "L2"])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--attacks", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--alone", action="store_true", help="each attack by itself, on all images")
    parser.add_argument("--steps-to-form", action="store_true", help="every form of the network on the way")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--processor-time", action="store_true", help="for a machine that does other work too; with one thread only"
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Run what the command line asks for."""
    asked = options()
    subject = find_subject(asked.model, data=asked.data, weights=asked.weights, progress=False)
    x, y = subject.images.__getitems__(sample(subject.images, asked.images, 0))
    bench = Bench(
        subject.model.to(asked.device),
        x.to(asked.device),
        y.to(asked.device),
        ThreatModel(asked.eps, asked.norm),
        time.process_time if asked.processor_time else time.perf_counter,
    )
    machine = (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{asked.model}, {len(x)} images, {bench.threat}; {machine}")
    groups = [[name] for name in asked.attacks] if asked.alone else [asked.attacks]
    found = {}
    for names in groups:
        print(f"{' + '.join(names)}:")
        found["+".join(names)] = race(bench, names, asked.rounds, every_form=asked.steps_to_form)
    if asked.json:
        circumstances = {name: str(value) for name, value in vars(asked).items()} | {"machine": machine}
        asked.json.write_text(json.dumps({"asked": circumstances, "found": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
