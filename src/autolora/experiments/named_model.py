"""A model by the name that the user gives it, and where the images lie that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolora.errors import InputError
from autolora.experiments.config import RunConfig, read_yaml
from autolora.experiments.result import CONFIG
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
    """

    name: str
    model: RobustModel
    classes: tuple[str, ...]
    config: RunConfig | None

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
            InputError: If there is no run to take the data of.
        """
        run = self.config
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
        InputError: If there is no such model, or its run is not finished.
    """
    run = Path(name)
    bundle = next((folder for folder in (run, run / "model") if (folder / "config.json").is_file()), None)
    config = read_yaml(run / CONFIG) if (run / CONFIG).is_file() else None
    if config is not None and bundle is None:
        raise InputError(f"{name}: this run is not finished; continue it with --config {run / CONFIG} --resume")
    if bundle is not None:
        return NamedModel(name, load_bundle(bundle).eval(), tuple(bundle_classes(bundle)), config)
    model = build_classifier(name, weights=weights, image_size=image_size, weights_format=weights_format)
    return NamedModel(name, model.eval(), (), config)
