"""Who comes to the doctor: a model and its data, also where the two do not belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from autolora.data import Splits, load_splits
from autolora.experiments.config import RunConfig
from autolora.experiments.named_model import find_model
from autolora.models import RobustModel


@dataclass(frozen=True)
class Patient:
    """A model and its data.

    Args:
        model: Images in [0, 1] to logits, in evaluation mode.
        splits: The data, of the model's classes if it names them and the data have them all.
        named: What the model calls its outputs; empty if it does not say.
        left_out: Classes of the data that the model does not know by name.
        config: The configuration of the run, if the model is one.
        changed: That the run's own images are no longer those of its training; None if they are.
    """

    model: RobustModel
    splits: Splits
    named: tuple[str, ...]
    left_out: tuple[str, ...]
    config: RunConfig | None
    changed: str | None


def find_patient(
    name: str,
    *,
    data: str | None = None,
    weights: str = "auto",
    weights_format: str = "auto",
    image_size: int | None = None,
    seed: int = 0,
    data_root: str | None = None,
    progress: bool = True,
) -> Patient:
    """Load a model and its data, as :func:`autolora.experiments.subject.find_subject` does, but refuse no pair.

    Args:
        name: A run folder, a folder with a model in timm's format, ``packaged``, a timm name, ``salman2020:NAME``, or a
            checkpoint file.
        data: Where the images are; None takes those of the run.
        weights: For a timm name: ``auto`` or ``pretrained``, or a checkpoint file; its own head is kept.
        weights_format: Of the checkpoint; ``auto`` recognises it.
        image_size: Side in pixels; None takes the model's own.
        seed: Of the division, where the data come without one and the model is no run; a run keeps its own.
        data_root: Where named sets lie; None takes the run's place, or the usual one.
        progress: Show a bar while images are read.

    Raises:
        InputError: If there is no such model, or no data, or an image cannot be read.
    """
    found = find_model(name, weights=weights, weights_format=weights_format, image_size=image_size)
    wanted = found.data(data, image_size=image_size, seed=seed, data_root=data_root)
    load = partial(load_splits, progress=progress, **wanted)
    named = found.classes
    splits = load()
    left_out: Sequence[str] = ()
    if named != splits.classes and set(named) <= set(splits.classes) and len(named) > 1:
        left_out = [name for name in splits.classes if name not in named]
        splits = load(classes=named)
    return Patient(found.model, splits, named, tuple(left_out), found.config, found.changed(data, splits.fingerprint))
