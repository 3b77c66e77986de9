"""The final scores of a run: the test split, touched once, natural and under PGD-10, with a verdict for every image."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from autolora.attacks import PGD, parse_attack
from autolora.data import ImageSet, Splits, loader
from autolora.evaluation import Verdicts, verdicts
from autolora.experiments.result import write_atomically, write_json
from autolora.models import RobustModel, evaluating
from autolora.models.folding import Folding
from autolora.threat import ThreatModel

EVALUATION_SEED = 0  # attacks that start at random do so alike for every run that is compared


def evaluation_attack(threat: ThreatModel, steps: int = 10) -> PGD:
    """Return the papers' PGD-k for measuring: steps of eps / 4 from the natural image, so without chance."""
    return parse_attack(f"pgd-{steps}", threat, start="natural")


def evaluation_batch(image_size: int | None) -> int:
    """Return how many images to judge at once: 256 at 32x32, fewer where images are larger."""
    return max(8, 256 * 32 * 32 // (image_size or 224) ** 2)


def assess(
    model: RobustModel,
    splits: Splits,
    threat: ThreatModel,
    folder: Path,
    *,
    attacks: Mapping[str, PGD] | None = None,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Judge the test images in full precision, natural and under every attack, and write the verdicts.

    Args:
        model: A finished model.
        splits: Its data; only the test split is looked at.
        threat: The threat model of the attacks.
        folder: Where ``verdicts.csv`` and ``evaluation.json`` go.
        attacks: Attacks by name; by default PGD-10.
        progress: Show a progress bar per attack.

    Returns:
        The ``scores`` block of ``result.json``.
    """
    attacks = attacks or {"pgd-10": evaluation_attack(threat)}
    natural = _judge(model, splits.test, None, "natural", progress)
    judged = {"natural": natural}
    for name, attack in attacks.items():
        attacked = _judge(model, splits.test, attack, name, progress)
        # the natural image lies in S(x) too: who is wrong on it is not robust, whatever an attack made of it
        judged[name] = attacked._replace(correct=attacked.correct & natural.correct)
    scores = {name: verdict.score.as_json() for name, verdict in judged.items()}
    write_atomically(folder / "verdicts.csv", _table(judged))
    write_json(folder / "evaluation.json", {"threat_model": str(threat), "scores": scores})
    return scores


def _judge(model: RobustModel, images: ImageSet, attack: PGD | None, name: str, progress: bool) -> Verdicts:
    device = next(model.parameters()).device
    batches = loader(images, evaluation_batch(model.architecture.network_size[-1]))
    shown = tqdm(batches, f"test, {name}", disable=not progress, leave=False, dynamic_ncols=True)
    with evaluating(model), torch.random.fork_rng():
        torch.manual_seed(EVALUATION_SEED)
        folded = partial(model.running, Folding(model.backbone).network(model.backbone))
        return verdicts(model, ((x.to(device), y.to(device)) for x, y in shown), attack, searching=folded)


def _table(judged: Mapping[str, Verdicts]) -> str:
    """Write one line per image: 1 where the model is still right."""
    natural = judged["natural"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", "predicted", *judged])
    columns = [natural.label.tolist(), natural.predicted.tolist()]
    columns += [verdict.correct.int().tolist() for verdict in judged.values()]
    writer.writerows([index, *row] for index, row in enumerate(zip(*columns, strict=True)))
    return text.getvalue()
