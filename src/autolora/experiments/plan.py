"""From the options of ``autolora plan`` to a forecast: prepare what ``fit`` would train, try it, multiply."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import fields, replace
from pathlib import Path

import torch

from autolora.data import loader
from autolora.errors import InputError
from autolora.experiments.assessment import evaluation_batch
from autolora.experiments.batch_search import batch_that_fits
from autolora.experiments.config import RunConfig, read_yaml
from autolora.experiments.environment import environment
from autolora.experiments.ingredients import Ingredients, prepare
from autolora.experiments.planning.attacking import attack_costs
from autolora.experiments.planning.checking import Check, check, read_record
from autolora.experiments.planning.forecast import Forecast, Sizes
from autolora.experiments.planning.rehearsal import rehearse
from autolora.experiments.planning.stage import Stage, set_up
from autolora.experiments.result import CONFIG, RESULT
from autolora.training.determinism import deterministic
from autolora.training.random_state import random_state, restore_random_state

logger = logging.getLogger(__name__)

ELSEWHERE = ("data", "data_root", "out")  # options that a run's may differ in and still be the run's


def run_plan(config: RunConfig, budget: float, *, progress: bool = True) -> tuple[Forecast, Check | None]:
    """Forecast what a run takes; writes nothing but a temporary folder.

    Args:
        config: Of the run, as for ``fit``; or ``data`` is the folder of a finished run, whose options are taken.
        budget: Seconds that AutoAttack may take.
        progress: Show progress bars.

    Returns:
        The forecast, and if there is a finished run, how far it is from what that has recorded.

    Raises:
        InputError: If the configuration or the data cannot work, as for ``fit``.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("plan measures one process; start it without torchrun, and divide by what more of them bring")
    run = _finished(config)
    record = None if run is None else read_record(run)
    if run is not None:
        config = _its_own(config, run)
    if config.shard:
        raise InputError("shard: plan measures one process, which holds the whole model; leave it out")
    state = random_state()
    try:
        with deterministic(config.deterministic):
            forecast = _forecast(config, budget, progress)
    finally:
        restore_random_state(state)
    return forecast, None if record is None else check(forecast, record)


def _forecast(config: RunConfig, budget: float, progress: bool) -> Forecast:
    started = time.perf_counter()
    found = prepare(config, progress=progress)
    preparing = time.perf_counter() - started
    logger.info("measuring: a few steps of training, validation, the test and AutoAttack")
    largest = batch_that_fits(found)
    parts = replace(found, config=replace(found.config, batch_size=largest)) if config.batch_size == "auto" else found
    stage = set_up(parts)
    costs = rehearse(stage)
    attacks = attack_costs(parts.model, _test_images(parts), parts.threat.norm, len(parts.splits.classes))
    return Forecast(
        parts.config,
        parts.model.architecture.name,
        environment(parts.device, parts.precision, parts.config.workers),
        _sizes(stage),
        costs,
        attacks,
        preparing,
        largest,
        budget,
    )


def _sizes(stage: Stage) -> Sizes:
    splits, config = stage.parts.splits, stage.parts.config
    assert config.epochs is not None
    counts = (len(splits.train), len(splits.val), len(splits.test))
    return Sizes(config.epochs, len(stage.epoch.train), stage.batch, *counts, stage.parts.method.pgd.steps)


def _test_images(parts: Ingredients) -> torch.Tensor:
    size = evaluation_batch(parts.model.architecture.network_size[-1])
    x, _ = next(iter(loader(parts.splits.test, size)))
    return x.to(parts.device)


def _finished(config: RunConfig) -> Path | None:
    """Return the folder of a finished run, if that is what the data are."""
    folder = Path(config.data)
    if (folder / RESULT).is_file():
        return folder
    if (folder / CONFIG).is_file():
        raise InputError(
            f"{folder} is a run that is not finished; forecast it with: autolora plan --config {folder / CONFIG}"
        )
    return None


def _its_own(config: RunConfig, run: Path) -> RunConfig:
    """Return the options of a finished run, beside which no others make sense."""
    for item in fields(RunConfig):
        if item.name not in ELSEWHERE and getattr(config, item.name) != item.default:
            raise InputError(
                f"option {item.name.replace('_', '-')} is given beside the finished run {run}, whose own options are "
                "forecast; leave it out, or name the images in place of the run"
            )
    own = read_yaml(run / CONFIG)
    return replace(own, data_root=config.data_root or own.data_root)
