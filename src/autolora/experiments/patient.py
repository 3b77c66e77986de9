"""Who comes to the doctor: a model and its data, also where the two do not belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autolora.data import Splits, load_splits
from autolora.errors import InputError
from autolora.experiments.config import RunConfig, read_yaml
from autolora.experiments.result import CONFIG
from autolora.experiments.subject import DIVISION
from autolora.models import RobustModel
from autolora.models.bundle import build_classifier, bundle_classes, load_bundle


@dataclass(frozen=True)
class Patient:
    """A model and its data.

    Args:
        model: Images in [0, 1] to logits, in evaluation mode.
        splits: The data, of the model's classes if it names them and the data have them all.
        named: What the model calls its outputs; empty if it does not say.
        left_out: Classes of the data that the model does not know by name.
        config: The configuration of the run, if the model is one.
    """

    model: RobustModel
    splits: Splits
    named: tuple[str, ...]
    left_out: tuple[str, ...]
    config: RunConfig | None


def find_patient(
    name: str,
    *,
    data: str | None = None,
    weights: str = "auto",
    weights_format: str = "auto",
    image_size: int | None = None,
    seed: int | None = None,
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
        seed: Of the division, where the data come without one; None takes the run's, or 0.
        progress: Show a bar while images are read.

    Raises:
        InputError: If there is no such model, or no data, or an image cannot be read.
    """
    run = Path(name)
    bundle = next((folder for folder in (run, run / "model") if (folder / "config.json").is_file()), None)
    config = read_yaml(run / CONFIG) if (run / CONFIG).is_file() else None
    if config is not None and bundle is None:
        raise InputError(f"{name}: this run is not finished; continue it with --config {run / CONFIG} --resume")
    data = data or (config.data if config is not None else None)
    if data is None:
        raise InputError(f"no data for {name}: it is no run; name the images with --data")
    model = (
        load_bundle(bundle)
        if bundle is not None
        else build_classifier(name, weights=weights, image_size=image_size, weights_format=weights_format)
    )
    load = partial(
        load_splits,
        data,
        image_size=image_size or model.architecture.input_size[-1],
        seed=seed if seed is not None else config.seed if config is not None else 0,
        progress=progress,
        **({} if config is None else {option: getattr(config, option) for option in DIVISION}),
    )
    named = tuple(bundle_classes(bundle)) if bundle is not None else ()
    splits = load()
    left_out: Sequence[str] = ()
    if named != splits.classes and set(named) <= set(splits.classes) and len(named) > 1:
        left_out = [name for name in splits.classes if name not in named]
        splits = load(classes=named)
    return Patient(model.eval(), splits, named, tuple(left_out), config)
