"""A model by the name that the user gives it, and where the images lie that belong to it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolora.errors import InputError
from autolora.experiments.config import RunConfig, read_yaml
from autolora.experiments.result import CONFIG, RESULT, SPLIT
from autolora.experiments.run_folder import path_of
from autolora.models import RobustModel
from autolora.models.bundle import build_classifier, bundle_classes, load_bundle

# of a run's options, those that decide its splits, and where named sets lie
DIVISION = ("val_fraction", "label_fraction", "skip_bad_images", "data_root")


@dataclass(frozen=True)
class NamedModel:
    """A model, and what its folder says about it.

    Args:
        name: As the user named it.
        model: Images in [0, 1] to logits, in evaluation mode.
        classes: What it calls its outputs, in their order; empty if it does not say.
        config: The configuration of the run, if the model is one.
        fingerprint: Of the run's images, if it is one and says so; see ``data.Splits``.
    """

    name: str
    model: RobustModel
    classes: tuple[str, ...]
    config: RunConfig | None
    fingerprint: str | None = None

    def data(
        self,
        data: str | None,
        *,
        image_size: int | None = None,
        seed: int = 0,
        data_root: str | None = None,
    ) -> dict[str, Any]:
        """Return the arguments of ``load_splits`` that give the images of this model, divided as its run did.

        Args:
            data: Where the images are; None takes those of the run.
            image_size: Side in pixels; None takes the model's own.
            seed: Of the division, where the data come without one and the model is no run; a run keeps its own.
            data_root: Where named sets lie; None takes the run's place, or the usual one.

        Raises:
            InputError: If there is no run to take the data of, or its data are not there.
        """
        run = self.config
        if data is None and run is not None:
            self._check_there(run.data)
        data = data or (run.data if run is not None else None)
        if data is None:
            raise InputError(f"no data for {self.name}: it is no run; name the images with --data")
        division = {} if run is None else {option: getattr(run, option) for option in DIVISION}
        return {
            "data": data,
            "image_size": image_size or self.model.architecture.input_size[-1],
            "seed": seed if run is None else run.seed,  # or it would be judged on images that it was trained on
            **division,
            **({"data_root": data_root} if data_root is not None else {}),
        }

    def changed(self, data: str | None, fingerprint: str) -> str | None:
        """Say that the run's own images are no longer those that it was trained on, if that is so.

        Where images came or went, a division made anew has images of the training in its test split.

        Args:
            data: Where the images are, as the user named it; None for those of the run. Others than the run's are
                meant to differ.
            fingerprint: Of the images that are there now.
        """
        if self.config is None or self.fingerprint in (None, fingerprint):
            return None
        if data is not None and not _same_place(data, self.config.data):
            return None
        return (
            f"the images of {self.config.data} are not those that {self.name} was trained on (fingerprint "
            f"{str(self.fingerprint)[:12]} then, {fingerprint[:12]} now), so images of its training may be among "
            "those it is judged on"
        )

    def _check_there(self, data: str) -> None:
        """Refuse to look for a run's own images where they are not: its folder or the images were moved."""
        path = path_of(data)
        if path is not None and not path.exists():
            where = "" if path.is_absolute() else ", counted from the folder that it was started in"
            raise InputError(
                f"{data} does not exist, where {self.name} says that its images lie{where}; name them with --data"
            )


def find_model(
    name: str, *, weights: str = "auto", weights_format: str = "auto", image_size: int | None = None
) -> NamedModel:
    """Load a model.

    Args:
        name: A run folder, a folder with a model in timm's format, ``packaged``, a timm name, ``salman2020:NAME``, or a
            checkpoint file.
        weights: For a timm name: ``auto`` or ``pretrained``, or a checkpoint file; its own head is kept.
        weights_format: Of the checkpoint; ``auto`` recognises it.
        image_size: Side in pixels; None takes the model's own.

    Raises:
        InputError: If there is no such model, its run is not finished, or it has weights and others are named.
    """
    run = Path(name)
    bundle = next((folder for folder in (run, run / "model") if (folder / "config.json").is_file()), None)
    config = read_yaml(run / CONFIG) if (run / CONFIG).is_file() else None
    if config is not None and bundle is None:
        raise InputError(f"{name}: this run is not finished; continue it with --config {run / CONFIG} --resume")
    if bundle is not None:
        _check_own(name, weights, weights_format, "a run" if config is not None else "a folder with a model")
        return NamedModel(name, load_bundle(bundle).eval(), tuple(bundle_classes(bundle)), config, _fingerprint(run))
    model = build_classifier(name, weights=weights, image_size=image_size, weights_format=weights_format)
    return NamedModel(name, model.eval(), (), config)


def _check_own(name: str, weights: str, weights_format: str, what: str) -> None:
    """Refuse weights beside a folder that holds its own."""
    for option, value in (("weights", weights), ("weights-format", weights_format)):
        if value != "auto":
            raise InputError(
                f"{option}={value}: {name} is {what} and brings its own; leave --{option} out, or give an architecture "
                "as MODEL"
            )


def _fingerprint(run: Path) -> str | None:
    """Return the fingerprint of a run's images; None for what is no run, or does not say."""
    for file, keys in ((RESULT, ("data", "fingerprint")), (SPLIT, ("fingerprint",))):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            content = json.loads((run / file).read_text(encoding="utf-8"))
            for key in keys:
                content = content[key]
            return str(content)
    return None


def _same_place(data: str, of_run: str) -> bool:
    return data == of_run or (os.path.exists(data) and os.path.realpath(data) == os.path.realpath(of_run))
