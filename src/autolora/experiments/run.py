"""From a configuration to a run folder: data, model, method and schedule; training; evaluation; result."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from autolora.errors import InputError
from autolora.evaluation import standard_error
from autolora.experiments.assessment import assess, evaluation_attack
from autolora.experiments.batches import clean_batches, training_batches, validation_batches
from autolora.experiments.circumstances import RunCircumstances
from autolora.experiments.config import RunConfig, to_yaml
from autolora.experiments.environment import environment, machine
from autolora.experiments.faults import explained
from autolora.experiments.image_sides import SHORTER_SIDE
from autolora.experiments.ingredients import Ingredients, prepare
from autolora.experiments.jointly import divided, held
from autolora.experiments.plugins import plugin_fingerprint
from autolora.experiments.processes import Processes, joined
from autolora.experiments.result import (
    CONFIG,
    METRICS,
    RESULT,
    SPLIT,
    RunResult,
    write_atomically,
    write_json,
    write_metrics,
)
from autolora.experiments.run_folder import CHECKPOINTS, as_begun, check_folder, how_far, stored_config, withdraw
from autolora.experiments.run_lock import check_free
from autolora.experiments.selection import selected_on
from autolora.experiments.tracking import epoch_log, tracked, tracker
from autolora.models.adapter_files import save_adapter
from autolora.models.adapters import fingerprint
from autolora.models.bundle import save_bundle
from autolora.threat import format_radius
from autolora.training import Checkpoints, Optimization, TrainingState, fit
from autolora.training.determinism import deterministic
from autolora.training.precision import autocast_for
from autolora.training.replicas import accelerator_for
from autolora.training.similarity import GradientSimilarity


def run(
    config: RunConfig, *, resume: bool = False, progress: bool = True, processes: Processes | None = None
) -> RunResult:
    """Fine-tune, evaluate on the test split, and write the run folder; ``result.json`` comes last.

    Processes that were launched together share every batch; the first one writes, and judges the test images.

    Args:
        config: What to do.
        resume: Continue a run that stopped, from its last checkpoint; start it if it never did.
        progress: Show progress bars, in the first process.
        processes: Those that share the run; None finds out.

    Raises:
        InputError: If the configuration, the data or the folder cannot work; nothing is written then.
        RunError: If the folder is in use, or the run cannot go on; what is kept, and how to go on, is in the message.
    """
    if processes is None:
        with joined(config.device) as processes:
            return run(config, resume=resume, progress=progress, processes=processes)
    started, progress = time.perf_counter(), progress and processes.first
    begun = processes.tell(processes.agree(partial(_check, config, resume, processes)))[0]
    config = config if begun is None else as_begun(config, begun)
    with deterministic(config.deterministic):
        found = processes.in_turn(partial(prepare, config, progress=progress))
        parts = processes.agree(partial(divided, found, config, processes))
        # the folder is looked at again: another process may have come first
        with explained(config.folder), held(config.folder, processes, partial(check_folder, config, resume)):
            try:
                return _run(parts, processes, resume=resume, progress=progress, started=started)
            except InputError:  # the method found out that it cannot train this model
                if processes.first:
                    withdraw(config.folder)
                raise


def _check(config: RunConfig, resume: bool, processes: Processes) -> RunConfig | None:
    """Look at what needs no data, in the first process; there return what the run to be continued began with."""
    if not processes.first:
        return None
    tracker(config)
    check_free(config.folder)
    check_folder(config, resume)
    return stored_config(config.folder)


def _run(parts: Ingredients, processes: Processes, *, resume: bool, progress: bool, started: float) -> RunResult:
    folder = parts.config.folder
    if processes.first:
        _begin(parts)
    processes.meet()
    first = fingerprint(parts.model.backbone) if processes.first else ""  # a run that goes on builds it anew
    begun = time.perf_counter()
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    state = _train(parts, checkpoints, processes.count, resume=resume, progress=progress)
    trained = time.perf_counter() - begun
    content: dict[str, Any] = {}
    if processes.first:
        write_metrics(folder / METRICS, state.history)  # again: who was interrupted after the last epoch lacks a row
        scores = assess(parts.model, parts.splits, parts.threat, folder / "evaluation", progress=progress)
        content = _result(parts, state, scores, processes.count)
        content["model"]["started_from"] = first
        _ship(parts, folder, scores)
        checkpoints.drop_previous()  # there is nothing to continue any more
        # training over all sessions, and what else this one did
        content["seconds"] = round(state.seconds + time.perf_counter() - started - trained, 3)
        write_json(folder / RESULT, content)
    return RunResult(folder, processes.tell(content)[0])


def _begin(parts: Ingredients) -> None:
    folder = parts.config.folder
    write_atomically(folder / CONFIG, to_yaml(parts.config))
    if how_far(folder) is None:  # a run that goes on has the same, or is refused
        write_atomically(folder / SPLIT, json.dumps(parts.splits.record()) + "\n")


def _ship(parts: Ingredients, folder: Path, scores: Mapping[str, Any]) -> None:
    """Write the model, and the adapter if the method made one."""
    classes = parts.splits.classes
    record = {
        "threat_model": str(parts.threat),
        "method": parts.config.method,
        "data": parts.config.data,
        "scores": dict(scores),
        SHORTER_SIDE: parts.splits.test.pixels.shorter,
    }
    save_bundle(parts.model, folder / "model", classes, record)
    if parts.method.adapter is not None:
        save_adapter(parts.method.adapter, folder / "adapter", classes, record)


def _train(
    parts: Ingredients, checkpoints: Checkpoints, processes: int, *, resume: bool, progress: bool
) -> TrainingState:
    config = parts.config
    assert config.epochs is not None
    if parts.device.type == "cpu" or parts.precision != "fp32":
        parts.model.to(memory_format=torch.channels_last)
    accelerator = accelerator_for(parts.device, parts.precision)
    splits = parts.splits.on(accelerator.device)
    seen = parts.model.architecture.network_size[-1]
    with tracked(accelerator, config) as track:
        return fit(
            parts.model,
            parts.method,
            training_batches(splits.train, config, accelerator.device),
            validation_batches(splits.val, seen, config, accelerator.device, processes),
            parts.schedule,
            accelerator,
            epochs=config.epochs,
            val_attack=evaluation_attack(parts.threat),
            checkpoints=checkpoints,
            optimization=Optimization(config.momentum, config.weight_decay, config.reset_momentum),
            clean=clean_batches(splits.train, config, processes),
            probe=_probe(parts),
            autocast=autocast_for(parts.precision, parts.device),
            names=splits.train.names,
            circumstances=RunCircumstances(
                config.data, splits.fingerprint, machine(parts.device, parts.precision, config.workers), _plugin(config)
            ),
            checkpoint_minutes=config.checkpoint_minutes,
            accumulate=config.accumulate,
            compile=config.compile,
            sync_norms=config.sync_batch_norm == "auto",
            shard=config.shard,
            resume=resume,
            progress=progress,
            on_epoch=epoch_log(config.folder, config.epochs, track),
        )


def _plugin(config: RunConfig) -> str | None:
    return plugin_fingerprint(config.plugin) if config.plugin is not None else None


def _probe(parts: Ingredients) -> GradientSimilarity | None:
    """Return what measures gradient similarity, if that is asked for."""
    every = parts.config.gradient_similarity
    if not every:
        return None
    return GradientSimilarity(parts.model, parts.method, clean_batches(parts.splits.train, parts.config), every)


def _result(parts: Ingredients, state: TrainingState, scores: Mapping[str, Any], processes: int) -> dict[str, Any]:
    splits = parts.splits
    selected = next(row for row in state.history if row[f"val_{parts.method.selects_on}"] == state.best)
    return {
        "status": "complete",
        "config": asdict(parts.config),
        "environment": environment(parts.device, parts.precision, parts.config.workers, _plugin(parts.config))
        | {"processes": processes},
        "data": {
            "classes": list(splits.classes),
            "train": len(splits.train),
            "val": len(splits.val),
            "test": len(splits.test),
            "test_split": splits.test_split,
            "majority": int(splits.test.labels.bincount().max()) / len(splits.test),
            "fingerprint": splits.fingerprint,
            "notes": list(splits.notes),
        },
        "model": parts.model.description(),
        "threat_model": {
            "norm": parts.threat.norm,
            "eps": format_radius(parts.threat.eps),
            "radius": parts.threat.radius,
        },
        "selected_on": selected_on(splits.notes),
        "selection": {
            "score": f"val_{parts.method.selects_on}",
            "epoch": int(selected["epoch"]),
            "accuracy": state.best,
            "standard_error": standard_error(len(splits.val), max(state.best, 0.0)),
        },
        "epochs_run": state.epoch,
        "scores": dict(scores),
    }
