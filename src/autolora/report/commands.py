"""The commands that repeat a run and its evaluations, and those that would fill what is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from shlex import quote
from typing import Any

from autolora.errors import InputError
from autolora.evaluation.shards import MANIFEST
from autolora.experiments.judged import EVALUATIONS
from autolora.experiments.judged_files import read_json
from autolora.experiments.result import CONFIG
from autolora.report.collected import CollectedRun
from autolora.report.evaluations import NATURAL, SHARDS, Evaluation
from autolora.threat import format_radius, parse_radius

ENOUGH = 1000  # images: 95 % intervals of 3 points to either side
RADII = (Fraction(1, 4), Fraction(1, 2), Fraction(2))  # of a curve, in terms of the run's own eps


def resume(run: CollectedRun) -> str:
    """Return the command that brings an unfinished run to its end."""
    return f"autolora fit --config {quote(str(run.folder / CONFIG))} --resume"


def repeat(run: CollectedRun) -> list[str]:
    """Return the commands that do a run again, and every evaluation of it."""
    again = f"{run.folder}-again"
    commands = [f"autolora fit --config {quote(str(run.folder / CONFIG))} --out {quote(again)}"]
    return commands + [
        _evaluate(run, item, f"{again}/{EVALUATIONS}/{item.folder.name}", again) for item in run.evaluations
    ]


def load(run: CollectedRun) -> str:
    """Return the line of Python that loads the model of a run."""
    return f"model = autolora.load({str(run.folder)!r})  # images (N, 3, H, W) in [0, 1] to logits"


def autoattack(run: CollectedRun) -> str:
    """Return the command for AutoAttack."""
    return f"autolora evaluate {quote(str(run.folder))}"


def curve(run: CollectedRun) -> str:
    """Return the command that measures accuracy against eps; the run's own radius comes first."""
    eps = parse_radius(run.threat.eps)
    radii = [eps, *(eps * float(share) if isinstance(eps, float) else eps * share for share in RADII)]
    asked = " ".join(f"--eps {format_radius(radius)}" for radius in radii)
    return (
        f"autolora evaluate {quote(str(run.folder))} --attack pgd-10 {asked}{_limit(run)} --out {_inside(run, 'curve')}"
    )


def corruptions(run: CollectedRun) -> str:
    """Return the command for common corruptions."""
    out = _inside(run, "corruptions")
    return f"autolora evaluate {quote(str(run.folder))} --attack pgd-10 --corruptions{_limit(run)} --out {out}"


def similarity(run: CollectedRun) -> str:
    """Return the command that trains again and measures gradient similarity."""
    config, out = quote(str(run.folder / CONFIG)), quote(f"{run.folder}-again")
    return f"autolora fit --config {config} --gradient-similarity 5 --out {out}"


def _limit(run: CollectedRun) -> str:
    """Return the option that keeps an evaluation short where there are many test images."""
    test = run.data.get("test")
    return "" if isinstance(test, int) and test <= ENOUGH else f" --limit {ENOUGH}"


def _inside(run: CollectedRun, name: str) -> str:
    return quote(str(run.folder / EVALUATIONS / name))


def _evaluate(run: CollectedRun, item: Evaluation, out: str, folder: str) -> str:
    words = ["autolora", "evaluate", quote(folder)]
    attacks = [score for score in item.scores if score.attack != NATURAL]
    for score in attacks:
        words += [
            "--attack",
            quote(score.attack.partition("x")[0] if score.attack.startswith("pgd-") else score.attack),
        ]
    restarts = next((found[1] for score in attacks if (found := re.fullmatch(r"pgd-\d+x(\d+)", score.attack))), None)
    words += ["--restarts", restarts] if restarts else []
    words += ["--engine", "reference"] if any("reference package" in score.label for score in attacks) else []
    norm, _, eps = item.threat.partition(" ")
    words += ["--norm", quote(norm)]
    for radius in dict.fromkeys([eps, *(score.threat.partition(" ")[2] for score in item.curve)]):
        words += ["--eps", quote(radius)]
    words += ["--split", quote(item.split)] if item.split != "test" else []
    test = run.data.get("test")
    words += ["--limit", str(item.images)] if isinstance(test, int) and item.images < test else []
    words += ["--corruptions"] if item.corruptions is not None else []
    words += ["--seed", str(seed)] if (seed := _seed(item)) else []
    return " ".join([*words, "--out", quote(out)])


def _seed(item: Evaluation) -> int | None:
    """Return the seed of attacks and sample, which stands with the verdicts as they were found."""
    for path in sorted((item.folder / SHARDS).glob(f"*/{MANIFEST}")):
        try:
            content: Mapping[str, Any] = read_json(path)
        except InputError:
            continue
        if isinstance(content, dict) and isinstance(content.get("seed"), int):
            return content["seed"]
    return None
