"""What a configuration stands for: data, model, method and schedule, built and checked before anything is written."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from inspect import signature
from typing import Any, get_type_hints

import torch

from autolora.attacks import parse_attack
from autolora.data import Splits, load_splits
from autolora.errors import InputError
from autolora.experiments.beginning import first_model, sizes
from autolora.experiments.config import RunConfig, suggestion
from autolora.experiments.evaluation_config import check_steps
from autolora.experiments.kinds import called, fits, is_plain, shown
from autolora.experiments.plugins import load_plugin
from autolora.experiments.proportion import warn_of_proportion
from autolora.methods import METHODS, Method
from autolora.models import Architecture, RobustModel
from autolora.models.adapter_files import load_adapter
from autolora.models.backbones import check_weights
from autolora.schedules import SCHEDULES, Schedule, build_schedule
from autolora.threat import ThreatModel, format_radius, parse_radius
from autolora.training.precision import resolve_device, resolve_precision

logger = logging.getLogger(__name__)

PAPER_EPOCHS, PAPER_BATCH = 60, 128
FEW_IMAGES = 2000  # below, 60 epochs only overfit robustly, and selection goes back to an earlier one
MIN_STEPS = 32  # per epoch: with fewer, the schedule compares epochs that have hardly moved


@dataclass(frozen=True)
class Ingredients:
    """What a configuration stands for, built and checked before anything is written."""

    config: RunConfig  # every ``None`` resolved
    splits: Splits
    model: RobustModel
    method: Method
    schedule: Schedule
    threat: ThreatModel
    device: torch.device
    precision: str


def prepare(config: RunConfig, *, progress: bool = True) -> Ingredients:
    """Build everything that a configuration names, and log what was found out; writes nothing.

    Raises:
        InputError: If something in it cannot work.
    """
    threat = ThreatModel(config.eps, config.norm)
    if config.plugin is not None:
        load_plugin(config.plugin)  # the method may come from it
    method = build_method(config, threat)
    _check_batch(config, method)
    _schedule(config, config.epochs or PAPER_EPOCHS)  # what is wrong with it is said before images are read
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    check_weights(config.model, config.weights, config.weights_format)
    if config.adapter is not None:
        load_adapter(config.adapter)  # before images are read
    image_size, upsampling = sizes(config)
    warn_of_proportion(threat, 3 * image_size**2)
    splits = load_splits(
        config.data,
        image_size=image_size,
        seed=config.seed,
        val_fraction=config.val_fraction,
        label_fraction=config.label_fraction,
        augmentation=config.augmentation,
        skip_bad_images=config.skip_bad_images,
        data_root=config.data_root,
        classes=[name.strip() for name in config.classes.split(",")] if config.classes else None,
        progress=progress,
    )
    for note in splits.notes:
        logger.info(note)
    model = first_model(config, len(splits.classes))
    asked = config.batch_size
    batch_size = asked if isinstance(asked, int) else default_batch_size(len(splits.train))
    epochs = config.epochs or default_epochs(len(splits.train))
    schedule = _schedule(config, epochs)
    _log_plan(config, splits, epochs, batch_size, model.architecture)
    resolved = replace(
        config,
        image_size=image_size,
        upsample_to=upsampling.to if upsampling is not None else None,
        upsampling=upsampling.mode if upsampling is not None else None,
        batch_size=batch_size,
        epochs=epochs,
        eps=format_radius(threat.eps),
    )
    return Ingredients(resolved, splits, model, method, schedule, threat, device, precision)


def build_method(config: RunConfig, threat: ThreatModel) -> Method:
    """Make the method that a configuration names, with its options.

    Raises:
        InputError: If the method or one of its options is unknown, or the attack takes no step.
    """
    check_steps(config.attack)
    if config.method not in METHODS:
        raise InputError(f"method {config.method!r} is unknown{suggestion(config.method, METHODS)}")
    cls = METHODS[config.method]
    options = dict(config.method_options or {})
    if config.rank is not None:
        options["rank"] = config.rank
    known = [item.name for item in fields(cls) if item.init and item.name != "pgd"]
    for name in options:
        if name not in known:
            raise InputError(f"method {config.method} has no option {name!r}{suggestion(name, known)}")
    _check_kinds(f"method {config.method}", options, get_type_hints(cls))
    step_size = None if config.step_size is None else float(parse_radius(config.step_size, "step-size"))
    return cls(parse_attack(config.attack, threat, step_size), **options)


def _check_batch(config: RunConfig, method: Method) -> None:
    fewest = method.fewest * config.accumulate
    if isinstance(config.batch_size, int) and config.batch_size < fewest:
        parts = "" if config.accumulate == 1 else f" in each of {config.accumulate} parts"
        raise InputError(
            f"batch-size={config.batch_size} is too small: {config.method} needs {method.fewest} images{parts}; "
            f"use {fewest} or more"
        )


def _schedule(config: RunConfig, epochs: int) -> Schedule:
    options = config.schedule_options or {}
    if config.schedule in SCHEDULES:
        parameters = signature(SCHEDULES[config.schedule], eval_str=True).parameters
        hints = {name: parameter.annotation for name, parameter in parameters.items()}
        _check_kinds(f"schedule {config.schedule}", options, hints)
    return build_schedule(config.schedule, config.lr, epochs, options)


def _check_kinds(what: str, options: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Refuse a value of another kind: neither YAML nor the command line knows these options."""
    for name, value in options.items():
        hint = hints.get(name)
        if is_plain(hint) and not fits(value, hint):
            raise InputError(f"{what}: {name}={shown(value)} is not {called(hint, name)}")


def default_batch_size(images: int, most: int = PAPER_BATCH) -> int:
    """Return the paper's 128, or on few images the largest power of two from 16 that leaves 32 steps in an epoch."""
    size = min(most, 1 << max(images, 16).bit_length())
    while size > 16 and images // size < MIN_STEPS:
        size //= 2
    return size


def default_epochs(images: int) -> int:
    """Return the paper's 60 epochs, or half as many on fewer than 2,000 images."""
    return PAPER_EPOCHS if images >= FEW_IMAGES else PAPER_EPOCHS // 2


def _log_plan(config: RunConfig, splits: Splits, epochs: int, batch_size: int, architecture: Architecture) -> None:
    steps = max(1, len(splits.train) // batch_size)
    image_size, upsampling = architecture.input_size[-1], architecture.upsampling
    enlarged = "" if upsampling is None else f", enlarged to {upsampling.to}x{upsampling.to} inside the model"
    logger.info(
        f"data: {len(splits.train)} train, {len(splits.val)} val, {len(splits.test)} test images of "
        f"{len(splits.classes)} classes at {image_size}x{image_size}{enlarged}"
    )
    why = (
        ""
        if config.epochs
        else (", the paper's" if epochs == PAPER_EPOCHS else f", half of the paper's on fewer than {FEW_IMAGES} images")
    )
    logger.info(f"training: {config.method}, {epochs} epochs{why}; {steps} steps of {batch_size} images in each")
