"""The functions of the Python interface that stand for commands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn

from autolora.attacks import Forward
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.evaluation import Batches
from autolora.experiments.config import check_seed, config_from
from autolora.experiments.evaluation import Panel, Questions
from autolora.experiments.evaluation import evaluate as ask
from autolora.experiments.evaluation_config import check_steps
from autolora.experiments.presets import with_preset
from autolora.experiments.proportion import warn_of_proportion
from autolora.experiments.result import RunResult
from autolora.experiments.run import run
from autolora.experiments.searching import victim_of
from autolora.experiments.subject import digest, model_fingerprint, settings_fingerprint
from autolora.models import RobustModel
from autolora.models.bundle import load_bundle
from autolora.threat import Norm, Radius, ThreatModel
from autolora.training.precision import resolve_precision

HALF = (torch.float16, torch.bfloat16)


def finetune(
    data: str | os.PathLike[str],
    *,
    preset: str | None = None,
    resume: bool = False,
    progress: bool = True,
    **options: Any,
) -> RunResult:
    """Fine-tune a pre-trained backbone into a robust classifier, and evaluate it on held-out images.

    Args:
        data: A folder of class folders (or ``train/ [val/] test/`` of them), an archive of one, or a named set.
        preset: Options of a published protocol to start from, such as ``"aff-trades"``; ``options`` win. ``autolora
            presets`` lists them.
        resume: Continue a run that stopped, from its last checkpoint; options that are None are as they were then.
        progress: Show progress bars.
        options: The options of ``autolora fit``, such as ``model``, ``method``, ``eps`` (pixel units, ``"8/255"``),
            ``epochs``, ``out``; the fields of :class:`autolora.experiments.config.RunConfig`.

    Returns:
        The scores and the run folder.

    Raises:
        InputError: If the preset, an option, the data or the folder cannot work; nothing is written then.
        RunError: If the run cannot go on: a full disk, a lost image, a loss that is not finite.
    """
    options = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in options.items()}
    if preset is not None:
        options = with_preset(preset, options)
    return run(config_from({**options, "data": data}), resume=resume, progress=progress)


def evaluate(
    model: Forward,
    x: Tensor | Batches,
    y: Tensor | None = None,
    *,
    attacks: Sequence[str] | str = ("autoattack",),
    eps: Radius = "8/255",
    norm: Norm = "Linf",
    restarts: int = 1,
    batch_size: int = 128,
    seed: int = 0,
    precision: str = "auto",
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Attack a model, and say how many images it still gets right.

    The model is evaluated as it is: what makes the result doubtful, such as batch norm in training mode, is named in
    ``flags``. Call its ``eval()`` first.

    Args:
        model: Images (N, C, H, W) in [0, 1] to logits (N, K), such as any ``nn.Module``; on the device of the images.
        x: Images, or a loader of batches (images, labels). If they are in 16 bits, the model is asked in 16 bits, and
            adversarial images are sought in float32: the grid of bf16 is coarser than many an ``eps``.
        y: Labels (N,), if ``x`` is a tensor.
        attacks: ``"autoattack"``, ``"autoattack-fast"`` (an upper bound), ``"pgd-K"``; one of them, or several.
        eps: Radius in pixel units.
        norm: ``"Linf"`` or ``"L2"``.
        restarts: Runs of PGD from random points; 1 is one run from the natural image.
        batch_size: Images to attack at once.
        seed: Of the attacks.
        precision: In which a :class:`RobustModel` is searched by attacks that follow gradients; ``auto`` is bf16 where
            the hardware has it. Every fall is confirmed in full precision. Other models are searched as they are.
        out: Folder for verdicts and adversarial images; what is in it already, of the same module (its tensors and its
            settings) and images, is not asked for again. A function cannot be told from another one: for it the folder
            has to be new. None keeps none.
        progress: Show progress bars.

    Returns:
        The scores by attack, and ``natural``: ``accuracy`` in [0, 1], ``correct``, ``total``, ``ci95``; of an attack
        also ``label``, ``flags`` and, for AutoAttack, the accuracy ``after`` each part.

    Raises:
        InputError: If there are no images or no labels for them, the model gives no logits, there is no attack or an
            unknown one, another argument cannot be, or ``out`` holds verdicts about something else.
    """
    check_seed(seed)
    if not callable(model):
        raise InputError(
            f"the model is a {type(model).__name__}; give a function of images, such as autolora.load(RUN)"
        )
    images, labels = _images(x, y)
    named = (attacks,) if isinstance(attacks, str) else tuple(attacks)
    if not named:
        raise InputError("no attack given; name one at least, such as autoattack or pgd-20")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size={batch_size!r} is no number of images; attack 1 at once, or more")
    for name in named:
        check_steps(name)
    resolve_precision(precision, images.device)
    if out is not None and Path(out).is_file():
        raise InputError(f"out={os.fspath(out)} is a file; give a folder that is new, or one of the same evaluation")
    if images.dtype in HALF:
        victim = Victim(partial(_cast, model, images.dtype))
        images = images.float()
    else:
        victim = victim_of(model, precision) if isinstance(model, RobustModel) else Victim(model)
    classes = _classes(victim.model, images[:2])
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"labels from {int(labels.min())} to {int(labels.max())} do not belong to a model of {classes} classes; "
            f"give 0 to {classes - 1}"
        )
    panel = Panel(
        lambda positions: (images[list(positions)], labels[list(positions)]),
        range(len(images)),
        classes,
        batch_size,
        {
            **_identity(model),
            "data": digest({"images": images, "labels": labels}),
            "precision": precision,
        },
    )
    questions = Questions(named, (str(eps),), norm, restarts, seed)
    warn_of_proportion(ThreatModel(eps, norm), images[0].numel())
    with TemporaryDirectory() as nowhere:
        folder = Path(out) if out is not None else Path(nowhere)
        scores: dict[str, dict[str, Any]] = ask(victim, panel, questions, folder, progress=progress)["scores"]
    return scores


def _cast(model: Forward, kind: torch.dtype, x: Tensor) -> Tensor:
    """Ask a model that computes in 16 bits, whose grid is too coarse to search an eps ball on."""
    return model(x.to(kind))


def _identity(model: Forward) -> dict[str, str]:
    """Return what tells a model from others, for ``out``: nothing does so for a function."""
    if isinstance(model, nn.Module):
        return {"model": model_fingerprint(model), "settings": settings_fingerprint(model)}
    return {"model": f"a function, {uuid4().hex}"}


def _images(x: Tensor | Batches, y: Tensor | None) -> tuple[Tensor, Tensor]:
    if not isinstance(x, Tensor):
        x, y = _gathered(x)
    if y is None:
        raise InputError("no labels: give evaluate(model, x, y) the labels (N,) of the images, or a loader of both")
    if not isinstance(y, Tensor):
        raise InputError(f"labels are a {type(y).__name__}; give a tensor (N,): torch.as_tensor(y)")
    if x.ndim != 4 or y.shape != x.shape[:1] or not len(x):
        raise InputError(
            f"images of shape {tuple(x.shape)} and labels of shape {tuple(y.shape)} do not belong together; give "
            "(N, C, H, W) and (N,)"
        )
    if not x.is_floating_point():
        raise InputError(f"images of {x.dtype} do not lie in [0, 1]; give floating-point numbers: x.float() / 255")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise InputError(f"labels of {y.dtype} are none; give whole numbers from 0 on")
    return x, y.long()


def _gathered(batches: Batches) -> tuple[Tensor, Tensor]:
    """Put the batches of a loader together."""
    asked = "give a tensor of images and one of labels, or a loader of batches (images, labels)"
    if not isinstance(batches, Iterable):
        raise InputError(f"images are a {type(batches).__name__}; {asked}")
    parts = list(batches)
    if not parts:
        raise InputError("no images to evaluate on: the loader is empty")
    if not all(isinstance(part, list | tuple) and len(part) == 2 for part in parts):
        raise InputError(f"images are a {type(batches).__name__} of other things than pairs; {asked}")
    columns = list(zip(*parts, strict=True))
    if not all(isinstance(item, Tensor) and item.ndim for column in columns for item in column):
        raise InputError(f"a {type(batches).__name__} gives single images or other things than tensors; {asked}")
    return torch.cat(columns[0]), torch.cat(columns[1])


def _classes(model: Forward, x: Tensor) -> int:
    """Ask a model for its number of classes, and refuse what is none."""
    with torch.no_grad():
        logits = model(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x) or not logits.is_floating_point():
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"the model answers {len(x)} images with {shape}; it has to give logits (N, K), floating-point numbers, "
            "one row for each image: wrap it in a function that does"
        )
    return logits.shape[1]


def load(run_folder: str | os.PathLike[str]) -> RobustModel:
    """Load the model of a finished run: images (N, 3, H, W) in [0, 1] to logits (N, K), in evaluation mode.

    Raises:
        InputError: If the folder holds no model.
    """
    return load_bundle(os.fspath(run_folder))
