"""From the options of ``autolora evaluate`` to an evaluation: the model, its images, and how they are searched."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autolora.data import ImageSet
from autolora.data.stratify import allocate, draw
from autolora.errors import InputError
from autolora.evaluation.corruptions.scores import corruption_scores
from autolora.experiments.assessment import evaluation_batch
from autolora.experiments.evaluation import EVALUATION, FAST_IMAGES, Panel, Questions, evaluate
from autolora.experiments.evaluation_config import EvaluationConfig
from autolora.experiments.faults import explained
from autolora.experiments.processes import Processes
from autolora.experiments.proportion import warn_of_proportion
from autolora.experiments.result import write_json
from autolora.experiments.run_folder import stored_config
from autolora.experiments.run_lock import LOCK, check_free, locked
from autolora.experiments.searching import victim_of
from autolora.experiments.subject import Subject, find_subject, model_fingerprint
from autolora.models import RobustModel
from autolora.threat import ThreatModel, format_radius, parse_radius
from autolora.training.precision import resolve_device, resolve_precision

logger = logging.getLogger(__name__)

CORRUPTIONS = "corruptions"  # in evaluation.json: what is found out last


def run_evaluation(
    config: EvaluationConfig, *, resume: bool = False, progress: bool = True, processes: Processes | None = None
) -> dict[str, Any]:
    """Evaluate, and return what ``evaluation.json`` holds.

    Args:
        config: What to do.
        resume: Continue an evaluation that stopped.
        progress: Show progress bars, in the first process.
        processes: Those that share the work; by default this one alone.

    Raises:
        InputError: If the model, the data or the folder cannot work.
        RunError: If the folder is in use, or the evaluation cannot go on; what was judged is kept.
    """
    processes = processes or Processes()
    progress = progress and processes.first
    processes.agree(partial(_check, config, resume, processes))
    device = resolve_device(config.device)
    subject = processes.in_turn(partial(_subject, config, progress))
    for note in subject.notes:
        logger.info(note)
    questions = _questions(config, subject)
    for radius in questions.radii:
        warn_of_proportion(ThreatModel(radius, questions.norm), 3 * subject.images.pixels.size**2)
    model = subject.model.to(device)
    if device.type == "cpu":
        model.to(memory_format=torch.channels_last)
    panel = _panel(config, subject, model, device)
    logger.info(
        f"evaluating {config.model} on {len(panel.order)} of {len(subject.images)} images: "
        f"{', '.join(questions.attacks)}, {questions.norm} {', '.join(map(format_radius, questions.radii))}"
    )
    victim = victim_of(model, config.precision)
    with explained(config.folder, _go_on), _alone(config.folder, processes):
        content = evaluate(victim, panel, questions, config.folder, progress=progress, processes=processes)
        if config.corruptions and processes.first:
            batches = (panel.fetch(positions) for positions in _batches(len(panel.order), panel.shard))
            content[CORRUPTIONS] = corruption_scores(
                model, batches, seed=config.seed, places=panel.order, progress=progress
            )
            write_json(config.folder / EVALUATION, content)
        processes.meet()
    return content


def _go_on(first: str) -> str:
    return f"what was judged is kept: {first}, then give the same command again with --resume"


def _alone(folder: Path, processes: Processes) -> AbstractContextManager[None]:
    """Lock the folder, which is written by the first process for all."""
    return locked(folder) if processes.first else nullcontext()


def _subject(config: EvaluationConfig, progress: bool) -> Subject:
    return find_subject(
        config.model,
        data=config.data,
        split=config.split,
        weights=config.weights,
        weights_format=config.weights_format,
        image_size=config.image_size,
        data_root=config.data_root,
        progress=progress,
    )


def _batches(total: int, size: int) -> Iterator[range]:
    return (range(first, min(total, first + size)) for first in range(0, total, size))


def sample(images: ImageSet, limit: int | None, seed: int) -> list[int]:
    """Return the positions of a stratified sample, or of all images, in random order."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.arange(len(images))
    if limit is not None and limit < len(images):
        counts = allocate(images.labels.bincount().tolist(), limit)
        chosen, _ = draw(images.labels, counts, generator)
    return chosen[torch.randperm(len(chosen), generator=generator)].tolist()


def _panel(config: EvaluationConfig, subject: Subject, model: RobustModel, device: torch.device) -> Panel:
    limit = config.limit or (FAST_IMAGES if config.fast else None)
    order = sample(subject.images, limit, config.seed)

    def fetch(positions: Any) -> tuple[Tensor, Tensor]:
        x, y = subject.images.__getitems__([order[position] for position in positions])
        return x.to(device), y.to(device)

    circumstances = {
        "model": model_fingerprint(model),
        "data": subject.fingerprint,
        "split": config.split,
        "classes": list(subject.classes),
        "precision": resolve_precision(config.precision, device),
        "architecture": [model.architecture.name, model.architecture.arguments],
        "image_size": subject.images.pixels.size,
    }
    size = config.batch_size or evaluation_batch(model.architecture.network_size[-1])
    return Panel(fetch, order, len(subject.classes), size, circumstances)


def _questions(config: EvaluationConfig, subject: Subject) -> Questions:
    run = subject.config
    eps = config.eps or ((str(run.eps),) if run is not None else ("8/255",))
    norm = config.norm or (run.norm if run is not None else "Linf")
    if config.eps_in == "normalised":
        eps = tuple(_in_pixels(radius, subject.model) for radius in eps)
    return Questions(config.attacks, eps, norm, config.restarts, config.seed, config.engine)


def _in_pixels(radius: str, model: RobustModel) -> str:
    """Return in pixels a radius of normalised images, which were divided by std; by its mean over the channels."""
    std = float(model.normalize.std.mean())
    pixels = format(float(parse_radius(radius)) * std, ".6g")
    logger.warning(
        f"eps {radius} in normalised units is {pixels} ({float(pixels) * 255:.3g}/255) in pixels, since the model "
        f"divides by {std:.3g}: a diagnosis of others' numbers, not the robustness that eps {radius} names"
    )
    return pixels


def _check(config: EvaluationConfig, resume: bool, processes: Processes) -> None:
    """Refuse what cannot work before anything is loaded."""
    _check_norm(config)
    resolve_precision(config.precision, resolve_device(config.device))
    for name in config.attacks:
        Questions(restarts=config.restarts, engine=config.engine).assault(name, ThreatModel(0))
    if processes.first:
        check_free(config.folder)
        _check_folder(config.folder, resume, CORRUPTIONS if config.corruptions else "scores")


def _check_norm(config: EvaluationConfig) -> None:
    """Refuse to take a run's radius for one of another norm, under which it is another adversary."""
    run = stored_config(Path(config.model))
    if run is not None and config.norm not in (None, run.norm) and not config.eps:
        raise InputError(
            f"norm={config.norm}: {config.model} was trained under {run.norm}, and its eps {run.eps} is another "
            f"adversary under {config.norm}; give the radius with --eps"
        )


def _check_folder(folder: Path, resume: bool, last: str) -> None:
    """Refuse a folder of something else, or of an evaluation that has come to what is found out last."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"out={folder} is a file; name a folder that is new or empty")
    if (folder / EVALUATION).is_file() and not (resume and _lacks(folder, last)):
        raise InputError(f"out={folder} holds a finished evaluation; name another folder with --out")
    if any(path.name != LOCK for path in folder.iterdir()) and not resume:
        raise InputError(
            f"out={folder} holds an evaluation that stopped; continue it with --resume, or name another with --out"
        )


def _lacks(folder: Path, name: str) -> bool:
    """Say whether ``evaluation.json`` was written before something else was found out."""
    with suppress(ValueError, RecursionError):
        return name not in json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
    return True
