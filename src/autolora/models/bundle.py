"""What a run ships: ``config.json`` and ``model.safetensors`` for timm, with normalisation and labels recorded.

Of a model that enlarges its images ``config.json`` says so under ``"upsampling"``. timm knows nothing of that: its own
model is the network behind it, which takes images that are large already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
from timm.models._hub import save_for_hf  # older releases do not export it from timm.models
from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.backbones import split, timm_model
from autolora.models.bundle_config import check_bundle, read_config
from autolora.models.checkpoints.sources import architecture_of
from autolora.models.creation import CONFIG, TimmModel, create
from autolora.models.hub import fetch
from autolora.models.robust import RobustModel
from autolora.models.upsampling import Upsampling, upsampling_of
from autolora.paths import expanded

UPSAMPLING = "upsampling"  # key in config.json
RECORD = "autolora"  # key of the circumstances in config.json


def save_bundle(model: RobustModel, folder: Path, classes: Sequence[str], record: Mapping[str, Any]) -> None:
    """Write a model in timm's format; ``timm.create_model("local-dir:FOLDER")`` gives the same logits.

    timm's model takes normalised images: ``(x - mean) / std`` with the values of ``pretrained_cfg`` in ``config.json``;
    and enlarged ones, where ``config.json`` says ``"upsampling"``.

    Args:
        model: A trained model without branches.
        folder: Where to write; made if need be.
        classes: Names of the classes, in the order of the logits.
        record: Circumstances kept under :data:`RECORD` in ``config.json``, such as the threat model and scores.
    """
    assert not model.branches, "what training adds, training removes: finalize the method before shipping"
    shipped, architecture = as_timm(model), model.architecture
    enlarging = {}
    if architecture.upsampling is not None:
        enlarging = {UPSAMPLING: {"images": architecture.input_size[-1], **asdict(architecture.upsampling)}}
    save_for_hf(
        shipped,
        str(folder),
        model_config={"label_names": list(classes), **enlarging, RECORD: dict(record)},
        model_args=model.architecture.arguments or None,
        safe_serialization=True,
    )


def as_timm(model: RobustModel) -> TimmModel:
    """Return timm's model with the same weights; it takes normalised images (N, C, H, W) of the network's size."""
    architecture = model.architecture
    classes = model.head.out_features
    shipped: TimmModel = timm.create_model(architecture.name, num_classes=classes, **architecture.arguments)
    head: dict[str, Tensor] = {
        f"{architecture.classifier}.{name}": tensor for name, tensor in model.head.state_dict().items()
    }
    shipped.load_state_dict({**model.backbone.state_dict(), **head})
    shipped.pretrained_cfg = {
        **shipped.pretrained_cfg,
        "input_size": architecture.network_size,
        "mean": tuple(model.normalize.mean.flatten().tolist()),
        "std": tuple(model.normalize.std.flatten().tolist()),
        "num_classes": classes,
    }
    return shipped


def load_bundle(folder: str | Path) -> RobustModel:
    """Read a model that :func:`save_bundle` wrote, or a run folder that holds one: images in [0, 1] to logits.

    The model comes in evaluation mode, on the CPU.

    Raises:
        InputError: If there is none, or its files are not what was exported.
    """
    folder = expanded(folder)
    path = folder if (folder / CONFIG).is_file() else folder / "model"
    if not (path / CONFIG).is_file():
        raise InputError(f"{folder}: no model in it; give a run folder that is finished, or its model/ folder")
    images, upsampling = _recorded(path / CONFIG) or (None, None)
    check_bundle(path)
    return _with_own_head(create(f"local-dir:{path}", {"pretrained": True}), images, upsampling)


def native_upsampling(name: str, weights_format: str = "auto") -> tuple[int, Upsampling] | None:
    """Return the side of its images and how they are enlarged, for a model that enlarges them; None for the others.

    Args:
        name: MODEL, as in :func:`build_classifier`. A folder and a repository of the hub record it.
        weights_format: Of a checkpoint.

    Raises:
        InputError: If the name is unknown, or the record is broken.
    """
    source, _, place = architecture_of(name, weights_format).partition(":")
    if source == "local-dir":
        return _recorded(Path(place) / CONFIG)
    return _recorded(fetch(place, CONFIG)) if source in ("hf-hub", "hf_hub") else None


def _recorded(config: Path) -> tuple[int, Upsampling] | None:
    record = read_config(config).get(UPSAMPLING)
    if record is None:
        return None
    upsampling = upsampling_of(record, str(config))
    if type(images := record.get("images")) is not int:
        raise InputError(f"{config}: its upsampling {record} is not as it was written; export the model again")
    return images, upsampling


def build_classifier(
    name: str, *, weights: str = "auto", image_size: int | None = None, weights_format: str = "auto"
) -> RobustModel:
    """Build a timm model that keeps its own head: images in [0, 1] to logits, in evaluation mode, on the CPU.

    Args:
        name: ``"packaged"``, a timm name, ``salman2020:NAME``, or a checkpoint file.
        weights: ``"auto"``, ``"pretrained"``, ``"packaged"``, ``"none"`` (random), or a checkpoint file.
        image_size: Side of the square input in pixels; None takes the model's own.
        weights_format: Of the checkpoint; ``"auto"`` recognises it.

    Raises:
        InputError: If the name is unknown, or the weights are out of reach, do not fit or have no head.
    """
    images, upsampling = native_upsampling(name, weights_format) or (None, None)
    network = image_size if upsampling is None else upsampling.to
    shipped = timm_model(name, weights, network, weights_format)
    return _with_own_head(shipped, image_size or images, upsampling)


def _with_own_head(
    shipped: TimmModel, image_size: int | None = None, upsampling: Upsampling | None = None
) -> RobustModel:
    head = shipped.get_classifier()
    if isinstance(head, nn.Identity):
        raise InputError(
            "the weights hold no head, only a backbone, which classifies nothing yet; fine-tune it first, with "
            "`autolora fit PHOTOS --model ARCHITECTURE --weights FILE`"
        )
    if not isinstance(head, nn.Linear):
        raise InputError(f"{type(shipped).__name__}: its last layer is {type(head).__name__}, not one linear layer")
    model = split(shipped, classes=head.out_features, image_size=image_size, upsampling=upsampling)
    model.head.load_state_dict(head.state_dict())
    return model.eval()


def bundle_record(folder: str | Path) -> dict[str, Any]:
    """Return the circumstances that a bundle records; empty if it records none."""
    record = read_config(Path(folder) / CONFIG).get(RECORD)
    return record if isinstance(record, dict) else {}


def bundle_classes(folder: str | Path) -> list[str]:
    """Return the class names of a bundle, in the order of the logits; empty if it records none."""
    return list(read_config(Path(folder) / CONFIG).get("label_names", []))
