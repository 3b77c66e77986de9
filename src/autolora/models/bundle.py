"""What a run ships: ``config.json`` and ``model.safetensors`` for timm, with normalisation and labels recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from timm.models._hub import save_for_hf  # older releases do not export it from timm.models
from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.backbones import TimmModel, split, timm_model
from autolora.models.robust import RobustModel


def save_bundle(model: RobustModel, folder: Path, classes: Sequence[str], record: Mapping[str, Any]) -> None:
    """Write a model in timm's format; ``timm.create_model("local-dir:FOLDER")`` gives the same logits.

    timm's model takes normalised images: ``(x - mean) / std`` with the values of ``pretrained_cfg`` in ``config.json``.

    Args:
        model: A trained model without branches.
        folder: Where to write; made if need be.
        classes: Names of the classes, in the order of the logits.
        record: Circumstances kept under ``"autolora"`` in ``config.json``, such as the threat model and scores.
    """
    assert not model.branches, "what training adds, training removes: finalize the method before shipping"
    shipped = as_timm(model)
    save_for_hf(
        shipped,
        str(folder),
        model_config={"label_names": list(classes), "autolora": dict(record)},
        model_args=model.architecture.arguments or None,
        safe_serialization=True,
    )


def as_timm(model: RobustModel) -> TimmModel:
    """Return timm's model with the same weights; it takes normalised images (N, C, H, W)."""
    architecture = model.architecture
    classes = model.head.out_features
    shipped: TimmModel = timm.create_model(architecture.name, num_classes=classes, **architecture.arguments)
    head: dict[str, Tensor] = {
        f"{architecture.classifier}.{name}": tensor for name, tensor in model.head.state_dict().items()
    }
    shipped.load_state_dict({**model.backbone.state_dict(), **head})
    shipped.pretrained_cfg = {
        **shipped.pretrained_cfg,
        "input_size": architecture.input_size,
        "mean": tuple(model.normalize.mean.flatten().tolist()),
        "std": tuple(model.normalize.std.flatten().tolist()),
        "num_classes": classes,
    }
    return shipped


def load_bundle(folder: str | Path) -> RobustModel:
    """Read a model that :func:`save_bundle` wrote, or a run folder that holds one: images in [0, 1] to logits.

    The model comes in evaluation mode, on the CPU.

    Raises:
        InputError: If there is none.
    """
    folder = Path(folder)
    path = folder if (folder / "config.json").is_file() else folder / "model"
    if not (path / "config.json").is_file():
        raise InputError(f"{folder}: no model in it; give a run folder that is finished, or its model/ folder")
    return _with_own_head(timm.create_model(f"local-dir:{path}", pretrained=True))


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
    return _with_own_head(timm_model(name, weights, image_size, weights_format), image_size)


def _with_own_head(shipped: TimmModel, image_size: int | None = None) -> RobustModel:
    head = shipped.get_classifier()
    if isinstance(head, nn.Identity):
        raise InputError(
            "the weights hold no head, only a backbone, which classifies nothing yet; fine-tune it first, with "
            "`autolora fit PHOTOS --model ARCHITECTURE --weights FILE`"
        )
    if not isinstance(head, nn.Linear):
        raise InputError(f"{type(shipped).__name__}: its last layer is {type(head).__name__}, not one linear layer")
    model = split(shipped, classes=head.out_features, image_size=image_size)
    model.head.load_state_dict(head.state_dict())
    return model.eval()


def bundle_classes(folder: str | Path) -> list[str]:
    """Return the class names of a bundle, in the order of the logits; empty if it records none."""
    return list(json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("label_names", []))
