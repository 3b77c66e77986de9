"""What is evaluated: a model by name, with the images that it has to answer for."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from autolora.data import ImageSet, load_part
from autolora.errors import InputError
from autolora.experiments.config import RunConfig
from autolora.experiments.evaluation_config import Split
from autolora.experiments.named_model import find_model
from autolora.models import RobustModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """A model and the images it is evaluated on.

    Args:
        name: As the user named it.
        model: Images in [0, 1] to logits, in evaluation mode.
        images: The split, not augmented.
        classes: Class names, in the order of the logits.
        fingerprint: Of the data; see ``data.Splits``.
        config: The configuration of the run, if the model is one.
        notes: What the user should know about the data.
    """

    name: str
    model: RobustModel
    images: ImageSet
    classes: tuple[str, ...]
    fingerprint: str
    config: RunConfig | None
    notes: tuple[str, ...]


def find_subject(
    name: str,
    *,
    data: str | None = None,
    split: Split = "test",
    weights: str = "auto",
    weights_format: str = "auto",
    image_size: int | None = None,
    data_root: str | None = None,
    progress: bool = True,
) -> Subject:
    """Load a model and its images; those of other splits are read for their fingerprint, and not decoded.

    Args:
        name: A run folder, a folder with a model in timm's format, ``packaged``, a timm name, ``salman2020:NAME``, or a
            checkpoint file.
        data: Where the images are; None takes those of the run.
        split: Which of them.
        weights: For a timm name: ``auto`` or ``pretrained``, or a checkpoint file; its own head is kept.
        weights_format: Of the checkpoint; ``auto`` recognises it.
        image_size: Side in pixels; None takes the model's own.
        data_root: Where named sets lie; None takes the run's place, or the usual one.
        progress: Show a bar while images are read.

    Raises:
        InputError: If there is no such model, no data, they do not belong together, or the images of a run changed.
    """
    found = find_model(name, weights=weights, weights_format=weights_format, image_size=image_size)
    wanted = found.data(data, image_size=image_size, data_root=data_root)
    part = load_part(split=split, classes=found.classes or None, progress=progress, **wanted)
    changed = found.changed(data, part.fingerprint)
    if changed is not None and data is None:
        raise InputError(f"{changed}; put them back as they were, or name other images with --data")
    if changed is not None:
        logger.warning(f"{changed}; put them back as they were")
    _check_classes(name, found.model.head.out_features, part.classes, known=bool(found.classes))
    images = part.images.with_augmentation(False)
    return Subject(name, found.model, images, part.classes, part.fingerprint, found.config, part.notes)


def model_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 over all parameters and buffers, by name, and over how images are enlarged, if they are."""
    tensors = dict(model.state_dict())
    if isinstance(model, RobustModel) and model.architecture.upsampling is not None:
        tensors[str(model.architecture.upsampling)] = torch.empty(0)
    return digest(tensors)


def settings_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 over what modules are and how they are set, which decides about answers beside the tensors.

    Settings are attributes that are plain values, tuples and lists of them, and functions by their names.
    """
    found = hashlib.sha256()
    for name, module in model.named_modules():
        kind = type(module)
        settings = {key: shown for key, value in vars(module).items() if (shown := _setting(value)) is not None}
        found.update(f"{name} {kind.__module__}.{kind.__qualname__} {sorted(settings.items())}".encode())
    return found.hexdigest()


def _setting(value: Any) -> str | None:
    if isinstance(value, tuple | list):
        parts = [_setting(item) for item in value]
        return None if None in parts else f"({', '.join(map(str, parts))})"
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value) if isinstance(value, bool | int | float | str) else None


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over tensors and their names."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _check_classes(name: str, outputs: int, classes: Sequence[str], *, known: bool) -> None:
    if outputs != len(classes):
        raise InputError(
            f"{name} tells {outputs} classes apart, and the data have {len(classes)} ({', '.join(classes[:5])}, ...); "
            "evaluate it on data of its own classes, or fine-tune it first"
        )
    if not known:
        named = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
        logger.warning(f"{name} does not name its classes: they are taken in the order of the data's names, {named}")
