"""From a configuration to a run folder: data, model, method and schedule; training; evaluation; result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from autolora.data import ImageSet, loader
from autolora.errors import InputError
from autolora.evaluation import standard_error
from autolora.experiments.assessment import assess, evaluation_attack, evaluation_batch
from autolora.experiments.circumstances import RunCircumstances
from autolora.experiments.config import RunConfig, to_yaml
from autolora.experiments.environment import environment, machine
from autolora.experiments.faults import explained
from autolora.experiments.ingredients import Ingredients, prepare
from autolora.experiments.result import CONFIG, METRICS, RESULT, RunResult, write_atomically, write_json, write_metrics
from autolora.experiments.run_folder import CHECKPOINTS, check_folder, withdraw
from autolora.experiments.run_lock import check_free, locked
from autolora.models.adapter_files import save_adapter
from autolora.models.bundle import save_bundle
from autolora.threat import format_radius
from autolora.training import Checkpoints, Optimization, TrainingState, fit
from autolora.training.determinism import deterministic
from autolora.training.precision import autocast_for
from autolora.training.similarity import GradientSimilarity

logger = logging.getLogger(__name__)


def run(config: RunConfig, *, resume: bool = False, progress: bool = True) -> RunResult:
    """Fine-tune, evaluate on the test split, and write the run folder; ``result.json`` comes last.

    Args:
        config: What to do.
        resume: Continue a run that stopped, from its last checkpoint; start it if it never did.
        progress: Show progress bars.

    Raises:
        InputError: If the configuration, the data or the folder cannot work; nothing is written then.
        RunError: If the folder is in use, or the run cannot go on; what is kept, and how to go on, is in the message.
    """
    started = time.perf_counter()
    check_free(config.folder)
    check_folder(config, resume)
    with deterministic(config.deterministic):
        ingredients = prepare(config, progress=progress)
        with explained(config.folder), locked(config.folder):
            check_folder(config, resume)  # again: another process may have come first
            try:
                return _run(ingredients, resume=resume, progress=progress, started=started)
            except InputError:  # the method found out that it cannot train this model
                withdraw(config.folder)
                raise


def _run(parts: Ingredients, *, resume: bool, progress: bool, started: float) -> RunResult:
    folder = parts.config.folder
    write_atomically(folder / CONFIG, to_yaml(parts.config))
    begun = time.perf_counter()
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    state = _train(parts, checkpoints, resume=resume, progress=progress)
    trained = time.perf_counter() - begun
    scores = assess(parts.model, parts.splits, parts.threat, folder / "evaluation", progress=progress)
    content = _result(parts, state, scores)
    _ship(parts, folder, scores)
    checkpoints.drop_previous()  # there is nothing to continue any more
    # training over all sessions, and what else this one did
    content["seconds"] = round(state.seconds + time.perf_counter() - started - trained, 3)
    write_json(folder / RESULT, content)
    return RunResult(folder, content)


def _ship(parts: Ingredients, folder: Path, scores: Mapping[str, Any]) -> None:
    """Write the model, and the adapter if the method made one."""
    classes = parts.splits.classes
    record = {
        "threat_model": str(parts.threat),
        "method": parts.config.method,
        "data": parts.config.data,
        "scores": dict(scores),
    }
    save_bundle(parts.model, folder / "model", classes, record)
    if parts.method.adapter is not None:
        save_adapter(parts.method.adapter, folder / "adapter", classes, record)


def _train(parts: Ingredients, checkpoints: Checkpoints, *, resume: bool, progress: bool) -> TrainingState:
    config, splits = parts.config, parts.splits
    assert config.batch_size is not None and config.epochs is not None
    if parts.device.type == "cpu" or parts.precision != "fp32":
        parts.model.to(memory_format=torch.channels_last)
    accelerator = Accelerator(
        cpu=parts.device.type == "cpu", mixed_precision="fp16" if parts.precision == "fp16" else "no"
    )
    drop_last = len(splits.train) > config.batch_size  # batch norm needs more than the one image that may be left
    return fit(
        parts.model,
        parts.method,
        loader(splits.train, config.batch_size, shuffle=True, drop_last=drop_last, num_workers=config.workers),
        loader(splits.val, evaluation_batch(config.image_size), num_workers=config.workers),
        parts.schedule,
        accelerator,
        epochs=config.epochs,
        val_attack=evaluation_attack(parts.threat),
        checkpoints=checkpoints,
        optimization=Optimization(config.momentum, config.weight_decay, config.reset_momentum),
        clean=_clean(splits.train, config),
        probe=_probe(parts),
        autocast=autocast_for(parts.precision, parts.device),
        names=splits.train.names,
        circumstances=RunCircumstances(
            config.data, splits.fingerprint, machine(parts.device, parts.precision, config.workers)
        ),
        checkpoint_minutes=config.checkpoint_minutes,
        resume=resume,
        progress=progress,
        on_epoch=_epoch_log(config.folder, config.epochs),
    )


def _probe(parts: Ingredients) -> GradientSimilarity | None:
    """Return what measures gradient similarity, if that is asked for."""
    every = parts.config.gradient_similarity
    if not every:
        return None
    return GradientSimilarity(parts.model, parts.method, _clean(parts.splits.train, parts.config), every)


def _clean(train: ImageSet, config: RunConfig) -> Any:
    """Return the training images as they are, in an order that is random once and for all: the first are a sample."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed)).tolist()
    # a generator of its own, so that measuring leaves the order and the augmentation of training as they are
    generator = torch.Generator().manual_seed(config.seed)
    images = train.with_augmentation(False).subset(order)
    return loader(images, evaluation_batch(config.image_size), generator=generator, num_workers=config.workers)


def _epoch_log(folder: Path, epochs: int) -> Callable[[TrainingState], None]:
    def log(state: TrainingState) -> None:
        write_metrics(folder / METRICS, state.history)
        row = state.history[-1]
        logger.info(
            f"epoch {state.epoch:>3}/{epochs}  lr {row['lr']:<8.3g} "
            f"validation: natural {row['val_natural']:6.1%}  robust {row['val_robust']:6.1%}  ({row['seconds']:.1f} s)"
        )

    return log


def _result(parts: Ingredients, state: TrainingState, scores: Mapping[str, Any]) -> dict[str, Any]:
    splits = parts.splits
    selected = next(row for row in state.history if row[f"val_{parts.method.selects_on}"] == state.best)
    return {
        "status": "complete",
        "config": asdict(parts.config),
        "environment": environment(parts.device, parts.precision, parts.config.workers),
        "data": {
            "classes": list(splits.classes),
            "train": len(splits.train),
            "val": len(splits.val),
            "test": len(splits.test),
            "majority": int(splits.test.labels.bincount().max()) / len(splits.test),
            "fingerprint": splits.fingerprint,
            "notes": list(splits.notes),
        },
        "threat_model": {
            "norm": parts.threat.norm,
            "eps": format_radius(parts.threat.eps),
            "radius": parts.threat.radius,
        },
        "selected_on": "val",
        "selection": {
            "score": f"val_{parts.method.selects_on}",
            "epoch": int(selected["epoch"]),
            "accuracy": state.best,
            "standard_error": standard_error(len(splits.val), max(state.best, 0.0)),
        },
        "epochs_run": state.epoch,
        "scores": dict(scores),
    }
