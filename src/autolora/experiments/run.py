"""From a configuration to a run folder: data, model, method and schedule; training; evaluation; result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from autolora.data import ImageSet, loader
from autolora.errors import InputError
from autolora.evaluation import standard_error
from autolora.experiments.assessment import assess, evaluation_attack, evaluation_batch
from autolora.experiments.config import RunConfig, read_yaml, to_yaml
from autolora.experiments.environment import environment
from autolora.experiments.ingredients import Ingredients, prepare
from autolora.experiments.result import CONFIG, METRICS, RESULT, RunResult, write_atomically, write_json, write_metrics
from autolora.models.adapter_files import save_adapter
from autolora.models.bundle import save_bundle
from autolora.threat import format_radius, parse_radius
from autolora.training import Checkpoints, Optimization, TrainingState, fit
from autolora.training.precision import autocast_for
from autolora.training.similarity import GradientSimilarity

logger = logging.getLogger(__name__)


def run(config: RunConfig, *, resume: bool = False, progress: bool = True) -> RunResult:
    """Fine-tune, evaluate on the test split, and write the run folder; ``result.json`` comes last.

    Args:
        config: What to do.
        resume: Continue a run that stopped, after its last finished epoch; start it if it never did.
        progress: Show progress bars.

    Raises:
        InputError: If the configuration, the data or the folder cannot work; nothing is written then.
        TrainingError: If training cannot go on.
    """
    started = time.perf_counter()
    _check_folder(config, resume)
    ingredients = prepare(config, progress=progress)
    config = ingredients.config
    folder = config.folder
    write_atomically(folder / CONFIG, to_yaml(config))
    begun = time.perf_counter()
    try:
        state = _train(ingredients, folder, resume=resume, progress=progress)
    except InputError:  # the method found out that it cannot train this model
        _withdraw(folder)
        raise
    trained = time.perf_counter() - begun
    scores = assess(ingredients.model, ingredients.splits, ingredients.threat, folder / "evaluation", progress=progress)
    content = _result(ingredients, state, scores)
    _ship(ingredients, folder, scores)
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


def _train(parts: Ingredients, folder: Path, *, resume: bool, progress: bool) -> TrainingState:
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
        checkpoints=Checkpoints(folder / "checkpoints"),
        optimization=Optimization(config.momentum, config.weight_decay, config.reset_momentum),
        clean=_clean(splits.train, config),
        probe=_probe(parts),
        autocast=autocast_for(parts.precision, parts.device),
        resume=resume,
        progress=progress,
        on_epoch=_epoch_log(folder, config.epochs),
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


def _withdraw(folder: Path) -> None:
    """Take back what was written of a run that could not begin."""
    if not (folder / "checkpoints").exists():
        (folder / CONFIG).unlink()
        with suppress(OSError):  # a folder that was there before may hold nothing, or be in use
            folder.rmdir()


def _check_folder(config: RunConfig, resume: bool) -> None:
    """Refuse a folder that holds something else, before anything slow begins."""
    folder = config.folder
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out={folder} is a file; name a folder that is new or empty")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / CONFIG).is_file():
        raise InputError(f"out={folder} is not empty and holds no run; name a folder that is new or empty with --out")
    if (folder / RESULT).is_file():
        raise InputError(f"out={folder} holds a finished run; name another folder with --out")
    if not resume:
        raise InputError(
            f"out={folder} holds a run that stopped; continue it with --resume, or name another with --out"
        )
    _check_same(config, read_yaml(folder / CONFIG))


def _check_same(config: RunConfig, stored: RunConfig) -> None:
    """Refuse to continue a run as another one; an option that was left open then and now is the same."""
    for item in fields(RunConfig):
        asked, was = getattr(config, item.name), getattr(stored, item.name)
        if item.name in ("out", "workers") or asked in (None, was):
            continue
        if item.name == "eps" and parse_radius(asked) == parse_radius(was):
            continue
        raise InputError(
            f"--resume: the run in {config.folder} was started with {item.name}={was}, not {asked}; "
            f"continue it with --config {config.folder / CONFIG} --resume, or start a new run with another --out"
        )


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
        "environment": environment(str(parts.device), parts.precision),
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
