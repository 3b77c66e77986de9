"""What each part of a run costs, found by trying it: update, validation and checkpoint are the real ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from autolora.attacks import Forward
from autolora.data import loader
from autolora.evaluation import verdicts
from autolora.experiments.assessment import evaluation_batch
from autolora.experiments.batches import clean_batches
from autolora.experiments.planning.measuring import (
    REPEATS,
    Batches,
    Cost,
    again_and_again,
    cost_of,
    costs_in_turns,
    wait,
)
from autolora.experiments.planning.stage import Stage
from autolora.models import evaluating
from autolora.models.folding import Folding
from autolora.training import Checkpoints, TrainingState
from autolora.training.draws import Draws
from autolora.training.similarity import GradientSimilarity
from autolora.training.trial import TRIED
from autolora.training.update import in_parts

LONGEST_TRIAL = 2 * TRIED + 2  # batches until it is known what runs compiled: those of a trial, and two to spare
Searching = Callable[[], AbstractContextManager[object]]
MEASURED_FIRST = 1  # the epoch in which gradient similarity is measured here; it may be asked for in others


@dataclass(frozen=True)
class Measuring:
    """What a method measures before an epoch.

    Args:
        seconds: How long.
        images: On how many training images.
        mib: Peak memory, in MiB.
    """

    seconds: float
    images: int
    mib: float


@dataclass(frozen=True)
class Costs:
    """What the parts of a run cost on this machine.

    Args:
        step: A training step, drawing its batch included; per image.
        attack: Of that, making the adversarial images; per image.
        compiling: Seconds until the form of a step was chosen and compiled; 0 where nothing is.
        measuring: Before the first epoch, and before any other.
        validation: Natural and robust accuracy; per validation image.
        checkpoint: Last and best weights; per epoch.
        similarity: Seconds of measuring gradient similarity once; 0 where that is not asked for.
        test: Natural and PGD-10 verdicts; per test image.
    """

    step: Cost
    attack: Cost
    compiling: float
    measuring: tuple[Measuring, Measuring]
    validation: Cost
    checkpoint: Cost
    similarity: float
    test: Cost


def rehearse(stage: Stage) -> Costs:
    """Try every part of a run in the order of a run; afterwards the model is finished, as it is after training."""
    epoch = stage.epoch
    first = before_epoch(stage)
    epoch.method.begin_training(epoch.model)
    terms: dict[str, list[Tensor]] = {}

    def learn(x: Tensor, y: Tensor) -> None:
        for name, term in epoch.update(x, y).items():
            terms.setdefault(name, []).append(term)

    taken, settled = _settle(stage, learn)
    search = partial(_search, stage)
    step, attack = costs_in_turns(epoch.train, (learn, search), stage.device, least=REPEATS)
    compiling = max(0.0, settled - taken * step.each * stage.batch) if any(stage.forms.chosen().values()) else 0.0
    epoch.method.end_training({name: float(torch.stack(values).mean()) for name, values in terms.items()})
    with evaluating(epoch.model):
        validation = _judging(stage, epoch.val, epoch.update.attacked)
    checkpoint, similarity = _checkpoint(stage), _similarity(stage)
    later = before_epoch(stage)
    epoch.method.finalize(epoch.model)
    return Costs(step, attack, compiling, (first, later), validation, checkpoint, similarity, _test(stage))


def _settle(stage: Stage, learn: Callable[[Tensor, Tensor], None]) -> tuple[int, float]:
    """Learn until it is chosen and compiled what shall be; return from how many batches, and the seconds.

    A trial takes only whole batches, of which there may be none; then nothing is chosen, nor in the run itself.
    """
    taken, started, forms = 0, time.perf_counter(), stage.forms
    batches = again_and_again(stage.epoch.train)
    while taken < LONGEST_TRIAL and (None in (chosen := forms.chosen().values()) or (any(chosen) and not taken)):
        learn(*next(batches))
        taken += 1
    batches.close()
    wait(stage.device)
    return taken, time.perf_counter() - started


def before_epoch(stage: Stage) -> Measuring:
    """Let the method measure as before an epoch, but on a few batches, and extrapolate to those that it asks for."""
    epoch, asked = stage.epoch, [Measuring(0.0, 0, 0.0)]
    tried = 0.0

    def accuracy(way: Forward, *, augmented: bool = True, images: int | None = None) -> float:
        nonlocal tried
        started, batches, seen = time.perf_counter(), epoch.train if augmented else epoch.clean, list[float]()
        assert batches is not None
        cost = cost_of(batches, lambda x, y: seen.append(verdicts(way, [(x, y)]).score.accuracy), stage.device)
        count = _images(batches, len(stage.parts.splits.train), images)
        asked.append(Measuring(cost.each * count, count, cost.mib))
        tried += time.perf_counter() - started
        return fmean(seen)

    started = time.perf_counter()
    with evaluating(epoch.model), epoch.autocast():
        epoch.method.begin_epoch(epoch.model, accuracy)
    wait(stage.device)
    own = time.perf_counter() - started - tried
    seconds, images = own + sum(one.seconds for one in asked), sum(one.images for one in asked)
    return Measuring(seconds, images, max(one.mib for one in asked))


def _images(batches: Draws, most: int, wanted: int | None) -> int:
    """Return how many images a pass looks at that ends, after whole batches, when it has seen those that are wanted."""
    size = batches.loader.total_batch_size
    whole = min(len(batches) * size, most)
    return whole if wanted is None else min(whole, math.ceil(wanted / size) * size)


def _search(stage: Stage, x: Tensor, y: Tensor) -> None:
    """Make the adversarial images of a batch, as a step does."""
    update, epoch = stage.epoch.update, stage.epoch
    for part_x, part_y in in_parts(x, y, update.parts, update.method.fewest):
        with update.attacked():
            epoch.method.attack(epoch.model, part_x, part_y)


def _judging(stage: Stage, batches: Batches, searching: Searching) -> Cost:
    """Take natural verdicts, and those under the evaluation attack."""
    model, attack, device = stage.epoch.model, stage.epoch.val_attack, stage.device

    def natural(x: Tensor, y: Tensor) -> None:
        verdicts(model, [(x.to(device), y.to(device))])

    def robust(x: Tensor, y: Tensor) -> None:
        verdicts(model, [(x.to(device), y.to(device))], attack, searching=searching)

    costs = [cost_of(batches, judge, device) for judge in (natural, robust)]
    return Cost(sum(cost.each for cost in costs), max(cost.mib for cost in costs))


def _checkpoint(stage: Stage) -> Cost:
    with TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        snapshots = stage.snapshots(checkpoints)

        def save(x: Tensor, y: Tensor) -> None:
            checkpoints.save_best(stage.epoch.model.state_dict())
            snapshots.save(TrainingState())

        return cost_of([(torch.zeros(1), torch.zeros(1))], save, stage.device)


def _similarity(stage: Stage) -> float:
    if not stage.parts.config.gradient_similarity:
        return 0.0
    images = clean_batches(stage.parts.splits.train, stage.parts.config)
    probe = GradientSimilarity(stage.epoch.model, stage.epoch.method, images)
    return float(probe(MEASURED_FIRST)["gs_seconds"])


def _test(stage: Stage) -> Cost:
    """Judge test images as a run does in the end: in full precision, through the folded network."""
    model = stage.epoch.model
    batches = loader(stage.parts.splits.test, evaluation_batch(model.architecture.network_size[-1]))
    with evaluating(model):
        return _judging(stage, batches, partial(model.running, Folding(model.backbone).network(model.backbone)))
