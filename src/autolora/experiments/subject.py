"""What is evaluated: a model by name, with the images that it has to answer for."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from autolora.data import ImageSet, load_splits
from autolora.errors import InputError
from autolora.experiments.config import RunConfig, read_yaml
from autolora.experiments.evaluation_config import Split
from autolora.experiments.result import CONFIG
from autolora.models import RobustModel
from autolora.models.bundle import build_classifier, bundle_classes, load_bundle

logger = logging.getLogger(__name__)

DIVISION = ("val_fraction", "label_fraction", "skip_bad_images")  # of a run's options, those that decide its splits


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
    seed: int | None = None,
    progress: bool = True,
) -> Subject:
    """Load a model and its images.

    Args:
        name: A run folder, a folder with a model in timm's format, ``packaged``, a timm name, ``salman2020:NAME``, or a
            checkpoint file.
        data: Where the images are; None takes those of the run.
        split: Which of them.
        weights: For a timm name: ``auto`` or ``pretrained``, or a checkpoint file; its own head is kept.
        weights_format: Of the checkpoint; ``auto`` recognises it.
        image_size: Side in pixels; None takes the model's own.
        seed: Of the division, where the data come without one; None takes the run's, or 0.
        progress: Show a bar while images are read.

    Raises:
        InputError: If there is no such model, no data, or they do not belong together.
    """
    run = Path(name)
    bundle = next((folder for folder in (run, run / "model") if (folder / "config.json").is_file()), None)
    config = read_yaml(run / CONFIG) if (run / CONFIG).is_file() else None
    if config is not None and bundle is None:
        raise InputError(f"{name}: this run is not finished; continue it with --config {run / CONFIG} --resume")
    model = (
        load_bundle(bundle)
        if bundle is not None
        else build_classifier(name, weights=weights, image_size=image_size, weights_format=weights_format)
    )
    data = data or (config.data if config is not None else None)
    if data is None:
        raise InputError(f"no data for {name}: it is no run; name the images with --data")
    names = bundle_classes(bundle) if bundle is not None else []
    splits = load_splits(
        data,
        image_size=image_size or model.architecture.input_size[-1],
        seed=seed if seed is not None else config.seed if config is not None else 0,
        classes=names or None,
        progress=progress,
        **({} if config is None else {option: getattr(config, option) for option in DIVISION}),
    )
    _check_classes(name, model.head.out_features, splits.classes, known=bool(names))
    images: ImageSet = getattr(splits, split)
    return Subject(
        name,
        model.eval(),
        images.with_augmentation(False),
        splits.classes,
        splits.fingerprint,
        config,
        splits.notes,
    )


def model_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 over all parameters and buffers, by name."""
    return digest(model.state_dict())


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
