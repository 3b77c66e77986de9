"""From a configuration to a run folder: data, model, method and schedule; training; evaluation; result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from autolora.attacks import parse_attack
from autolora.data import Splits, load_splits, loader
from autolora.errors import InputError
from autolora.evaluation import standard_error
from autolora.experiments.assessment import assess, evaluation_attack, evaluation_batch
from autolora.experiments.config import RunConfig, read_yaml, suggestion, to_yaml
from autolora.experiments.environment import environment
from autolora.experiments.result import CONFIG, METRICS, RESULT, RunResult, write_atomically, write_json, write_metrics
from autolora.methods import METHODS, Method
from autolora.models import RobustModel, build_model, native_size
from autolora.models.bundle import save_bundle
from autolora.schedules import build_schedule
from autolora.threat import ThreatModel, format_radius, parse_radius
from autolora.training import Checkpoints, Optimization, TrainingState, fit
from autolora.training.precision import autocast_for, resolve_device, resolve_precision

logger = logging.getLogger(__name__)

PAPER_EPOCHS, PAPER_BATCH = 60, 128
FEW_IMAGES = 2000  # below, 60 epochs only overfit robustly, and selection goes back to an earlier one
MIN_STEPS = 16  # per epoch: fewer, and the schedule compares epochs that have hardly moved


@dataclass(frozen=True)
class Ingredients:
    """What a configuration stands for, built and checked before anything is written."""

    config: RunConfig  # every ``None`` resolved
    splits: Splits
    model: RobustModel
    method: Method
    threat: ThreatModel
    device: torch.device
    precision: str


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
    state = _train(ingredients, folder, resume=resume, progress=progress)
    scores = assess(ingredients.model, ingredients.splits, ingredients.threat, folder / "evaluation", progress=progress)
    content = _result(ingredients, state, scores)
    save_bundle(
        ingredients.model,
        folder / "model",
        ingredients.splits.classes,
        {"threat_model": str(ingredients.threat), "method": config.method, "data": config.data, "scores": scores},
    )
    content["seconds"] = round(state.seconds + time.perf_counter() - started, 3)
    write_json(folder / RESULT, content)
    return RunResult(folder, content)


def prepare(config: RunConfig, *, progress: bool = True) -> Ingredients:
    """Build everything that a configuration names, and log what was found out; writes nothing.

    Raises:
        InputError: If something in it cannot work.
    """
    threat = ThreatModel(config.eps, config.norm)  # type: ignore[arg-type]
    method = build_method(config, threat)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    image_size = config.image_size or native_size(config.model)
    splits = load_splits(
        config.data,
        image_size=image_size,
        seed=config.seed,
        val_fraction=config.val_fraction,
        label_fraction=config.label_fraction,
        augmentation=config.augmentation,
        skip_bad_images=config.skip_bad_images,
        classes=[name.strip() for name in config.classes.split(",")] if config.classes else None,
        progress=progress,
    )
    for note in splits.notes:
        logger.info(note)
    torch.manual_seed(config.seed)
    model = build_model(config.model, classes=len(splits.classes), weights=config.weights, image_size=image_size)
    batch_size = config.batch_size or default_batch_size(len(splits.train))
    epochs = config.epochs or default_epochs(len(splits.train))
    _log_plan(config, splits, epochs, batch_size, image_size)
    resolved = replace(config, image_size=image_size, batch_size=batch_size, epochs=epochs, eps=_eps_text(threat))
    return Ingredients(resolved, splits, model, method, threat, device, precision)


def build_method(config: RunConfig, threat: ThreatModel) -> Method:
    """Make the method that a configuration names, with its options.

    Raises:
        InputError: If the method or one of its options is unknown.
    """
    if config.method not in METHODS:
        raise InputError(f"method {config.method!r} is unknown{suggestion(config.method, METHODS)}")
    cls = METHODS[config.method]
    options = dict(config.method_options or {})
    if config.rank is not None:
        options["rank"] = config.rank
    known = [item.name for item in fields(cls) if item.name != "pgd"]
    for name in options:
        if name not in known:
            raise InputError(f"method {config.method} has no option {name!r}{suggestion(name, known)}")
    step_size = None if config.step_size is None else float(parse_radius(config.step_size))
    return cls(parse_attack(config.attack, threat, step_size), **options)


def default_batch_size(images: int) -> int:
    """Return the paper's 128, or on few images the largest power of two that leaves 16 steps in an epoch."""
    size = PAPER_BATCH
    while size > 8 and images // size < MIN_STEPS:
        size //= 2
    return size


def default_epochs(images: int) -> int:
    """Return the paper's 60 epochs, or half as many on fewer than 2,000 images."""
    return PAPER_EPOCHS if images >= FEW_IMAGES else PAPER_EPOCHS // 2


def _train(parts: Ingredients, folder: Path, *, resume: bool, progress: bool) -> TrainingState:
    config, splits = parts.config, parts.splits
    assert config.batch_size is not None and config.epochs is not None
    if parts.device.type == "cpu" or parts.precision != "fp32":
        parts.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    accelerator = Accelerator(
        cpu=parts.device.type == "cpu", mixed_precision="fp16" if parts.precision == "fp16" else "no"
    )
    drop_last = len(splits.train) > config.batch_size  # batch norm needs more than the one image that may be left
    return fit(
        parts.model,
        parts.method,
        loader(splits.train, config.batch_size, shuffle=True, drop_last=drop_last, num_workers=config.workers),
        loader(splits.val, evaluation_batch(config.image_size), num_workers=config.workers),
        build_schedule(config.schedule, config.lr, config.epochs, config.schedule_options),
        accelerator,
        epochs=config.epochs,
        val_attack=evaluation_attack(parts.threat),
        checkpoints=Checkpoints(folder / "checkpoints"),
        optimization=Optimization(config.momentum, config.weight_decay),
        autocast=autocast_for(parts.precision, parts.device),
        resume=resume,
        progress=progress,
        on_epoch=_epoch_log(folder, config.epochs),
    )


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
        raise InputError(f"out={folder} holds a run that stopped; continue it with --resume, or name another with --out")
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
            "leave the option as it was, or start a new run with another --out"
        )


def _log_plan(config: RunConfig, splits: Splits, epochs: int, batch_size: int, image_size: int) -> None:
    steps = max(1, len(splits.train) // batch_size)
    logger.info(
        f"data: {len(splits.train)} train, {len(splits.val)} val, {len(splits.test)} test images of "
        f"{len(splits.classes)} classes at {image_size}x{image_size}"
    )
    why = "" if config.epochs else (
        ", the paper's" if epochs == PAPER_EPOCHS else f", half of the paper's on fewer than {FEW_IMAGES} images"
    )
    logger.info(f"training: {config.method}, {epochs} epochs{why}; {steps} steps of {batch_size} images in each")


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
            "fingerprint": splits.fingerprint,
            "notes": list(splits.notes),
        },
        "threat_model": {"norm": parts.threat.norm, "eps": _eps_text(parts.threat), "radius": parts.threat.radius},
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


def _eps_text(threat: ThreatModel) -> str:
    return format_radius(threat.eps)
