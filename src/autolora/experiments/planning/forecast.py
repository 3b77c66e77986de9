"""From what was measured to what all of it takes: counts times seconds, the subset that a budget allows, JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolora.attacks.autoattack.ensemble import AutoAttack, Version
from autolora.evaluation import Score
from autolora.experiments.config import RunConfig
from autolora.experiments.planning.attacking import AttackCosts
from autolora.experiments.planning.rehearsal import Costs
from autolora.threat import ThreatModel

PREPARING, COMPILING, TRAINING, MEASURING = "preparing", "compiling", "training", "measuring"
VALIDATION, CHECKPOINTS, SIMILARITY, TEST = "validation", "checkpoints", "gradient-similarity", "test"
EACH_EPOCH = (TRAINING, MEASURING, VALIDATION)  # what the seconds of an epoch in metrics.jsonl are


@dataclass(frozen=True)
class Item:
    """A part of a run.

    Args:
        name: What it is called.
        count: How many of its unit there are.
        unit: What is counted: steps, images, epochs.
        seconds: All of them together.
        mib: Peak memory meanwhile, in MiB; None where it was not measured.
    """

    name: str
    count: int
    unit: str
    seconds: float
    mib: float | None = None


@dataclass(frozen=True)
class Sizes:
    """How much there is to do.

    Args:
        epochs: Passes over the training images, at most.
        steps: Training steps in an epoch.
        batch: Images in a step.
        train: Training images.
        val: Validation images.
        test: Test images.
        attack_steps: Steps of the training attack.
    """

    epochs: int
    steps: int
    batch: int
    train: int
    val: int
    test: int
    attack_steps: int


@dataclass(frozen=True)
class Subset:
    """The test images that a budget allows AutoAttack.

    Args:
        images: How many; 0 if not even one.
        seconds: What they take at most.
        total: Test images there are.
    """

    images: int
    seconds: float
    total: int

    @property
    def uncertainty(self) -> float | None:
        """Return half of Wilson's 95 % interval at an accuracy of one half, where it is widest; a share in [0, 1]."""
        if not self.images:
            return None
        low, high = Score(self.images // 2, self.images).ci95
        return (high - low) / 2


@dataclass(frozen=True)
class Forecast:
    """What a run and its evaluation take on this machine, as far as a few steps can tell.

    Args:
        config: Of the run, resolved.
        network: Name of the backbone.
        environment: Device, precision, threads and versions.
        sizes: How much there is to do.
        costs: What was measured of the run.
        attacks: What was measured of AutoAttack.
        preparing: Seconds until data, model and method were there.
        largest_batch: What ``--batch-size auto`` would take.
        budget: Seconds that AutoAttack may take.
    """

    config: RunConfig
    network: str
    environment: Mapping[str, Any]
    sizes: Sizes
    costs: Costs
    attacks: AttackCosts
    preparing: float
    largest_batch: int
    budget: float

    def items(self, epochs: int | None = None) -> list[Item]:
        """Return the parts of a run of so many epochs; by default all that are asked for."""
        costs, sizes = self.costs, self.sizes
        epochs = sizes.epochs if epochs is None else epochs
        steps, judged, (first, later) = epochs * sizes.steps, epochs * sizes.val, costs.measuring
        training = steps * sizes.batch * costs.step.each
        saves = epochs + self._within(training)
        items = [
            Item(PREPARING, 1, "time", self.preparing),
            Item(TRAINING, steps, "step", training, costs.step.mib),
            Item(
                MEASURING,
                first.images + (epochs - 1) * later.images,
                "image",
                first.seconds + (epochs - 1) * later.seconds,
                max(first.mib, later.mib),
            ),
            Item(VALIDATION, judged, "image", judged * costs.validation.each, costs.validation.mib),
            Item(CHECKPOINTS, saves, "time", saves * costs.checkpoint.each, costs.checkpoint.mib),
            Item(TEST, sizes.test, "image", sizes.test * costs.test.each, costs.test.mib),
        ]
        if costs.compiling:
            items.insert(1, Item(COMPILING, 1, "time", costs.compiling))
        if every := self.config.gradient_similarity:
            items.insert(-1, Item(SIMILARITY, epochs // every, "time", epochs // every * costs.similarity))
        return items

    def _within(self, training: float) -> int:
        """Return the checkpoints that are saved within epochs, because so many minutes have passed."""
        minutes = self.config.checkpoint_minutes
        return int(training / (60 * minutes)) if minutes else 0

    def seconds(self, epochs: int | None = None) -> float:
        """Return the seconds of the whole run."""
        return sum(item.seconds for item in self.items(epochs))

    def epoch_seconds(self, epochs: int | None = None) -> float:
        """Return the mean seconds of an epoch, counted as in ``metrics.jsonl``: without its checkpoint."""
        epochs = self.sizes.epochs if epochs is None else epochs
        return sum(item.seconds for item in self.items(epochs) if item.name in EACH_EPOCH) / epochs

    @property
    def mib(self) -> float:
        """Return the peak memory of the run, in MiB."""
        return max(item.mib for item in self.items() if item.mib is not None)

    def version(self, version: Version) -> AttackCosts:
        """Return what a version of AutoAttack costs per image."""
        return self.attacks.of(AutoAttack(ThreatModel(0), version))

    def subset(self, version: Version) -> Subset:
        """Return the test images that the budget allows, all of them if it does."""
        each = self.version(version).each
        images = min(self.sizes.test, math.floor(self.budget / each))
        return Subset(images, images * each, self.sizes.test)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values: seconds, MiB, counts and shares."""
        config, whole = self.config, self.seconds()
        return {
            "data": config.data,
            "method": config.method,
            "network": self.network,
            "environment": dict(self.environment),
            "images": {"train": self.sizes.train, "val": self.sizes.val, "test": self.sizes.test},
            "fit": {
                "epochs": self.sizes.epochs,
                "batch_size": self.sizes.batch,
                "seconds": whole,
                "epoch_seconds": self.epoch_seconds(),
                "peak_mib": self.mib,
                "step_seconds": self.sizes.batch * self.costs.step.each,
                "attack_share": self.attack_share,
                "parts": {item.name: _plain(item, whole) for item in self.items()},
            },
            "autoattack": {version: self._attack(version) for version in VERSIONS},
            "largest_batch": self.largest_batch,
            "subset": {"budget_seconds": self.budget} | {version: self._subset(version) for version in VERSIONS},
        }

    @property
    def attack_share(self) -> float:
        """Return the share of a training step that makes the adversarial images, in [0, 1]."""
        return min(1.0, self.costs.attack.each / self.costs.step.each)

    def _attack(self, version: Version) -> dict[str, Any]:
        costs, test = self.version(version), self.sizes.test
        parts = {name: {**part.passes._asdict(), "seconds": test * part.each} for name, part in costs.parts.items()}
        return {"images": test, "seconds": test * costs.each, "peak_mib": costs.mib, "parts": parts}

    def _subset(self, version: Version) -> dict[str, Any]:
        subset = self.subset(version)
        return {"images": subset.images, "seconds": subset.seconds, "ci95_half_width": subset.uncertainty}


VERSIONS: Sequence[Version] = ("standard", "fast")


def _plain(item: Item, whole: float) -> dict[str, Any]:
    return {
        "count": item.count,
        "unit": item.unit,
        "seconds": item.seconds,
        "share": item.seconds / whole,
        "peak_mib": item.mib,
    }
