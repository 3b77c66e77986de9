"""Build a model from a name: any timm classification model, or the robust backbone that the package ships."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.robust import Architecture, Normalize, RobustModel
from autolora.models.weights import load_strictly, read_state

PACKAGED = "packaged"  # as a model: the shipped architecture with its weights
PACKAGED_ARCHITECTURE = "resnet20w24_cifar"
PACKAGED_WEIGHTS = "resnet20w24_cifar10_linf.safetensors"


def build_model(
    name: str = PACKAGED,
    *,
    classes: int,
    weights: str = "auto",
    image_size: int | None = None,
) -> RobustModel:
    """Build normalise, backbone and a new head.

    The head is torch's default linear layer, as in the papers: the checkpoint's own head, for its own classes, is read
    and left out.

    Args:
        name: ``"packaged"``, a timm name (``resnet18``, ``hf-hub:...``), or a folder with a timm ``config.json``, such
            as a run folder's ``model/``.
        classes: Classes K of the new head.
        weights: ``"auto"`` (packaged ones for the packaged model, else timm's pre-trained ones), ``"pretrained"``,
            ``"packaged"``, ``"none"`` (random), or a checkpoint file.
        image_size: Side of the square input in pixels; None takes the model's own.

    Raises:
        InputError: If the name is unknown, or the weights are out of reach or do not fit.
    """
    architecture_name = PACKAGED_ARCHITECTURE if name == PACKAGED else _local_dir(name)
    weights = resolve_weights(name, weights)
    state = None if weights in ("none", "pretrained") else read_state(_weights_file(weights))
    model = _create(architecture_name, weights, state, image_size)
    return split(model, classes=classes, image_size=image_size)


def resolve_weights(name: str, weights: str) -> str:
    """Replace ``"auto"``: the packaged weights for the packaged model, timm's pre-trained ones for every other."""
    if weights != "auto":
        return weights
    return PACKAGED if name == PACKAGED else "pretrained"


def native_size(name: str) -> int:
    """Side in pixels of the images that a model was made for: 32 for CIFAR models, mostly 224 for timm's.

    Raises:
        InputError: If the name is unknown.
    """
    model = _create(PACKAGED_ARCHITECTURE if name == PACKAGED else _local_dir(name), "none", None, None, meta=True)
    return int(model.pretrained_cfg["input_size"][-1])


def split(model: nn.Module, *, classes: int, image_size: int | None = None) -> RobustModel:
    """Split a timm model into a backbone, which gives features (N, D), and a new head for ``classes`` classes.

    Raises:
        InputError: If timm does not name exactly one classifier layer, or the backbone does not give features (N, D).
    """
    config: Mapping[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    classifier = config.get("classifier")
    if not isinstance(classifier, str):
        raise InputError(f"{config.get('architecture')}: timm names {classifier!r} as its classifier, not one layer")
    channels, height, width = config["input_size"]
    architecture = Architecture(
        name=config["architecture"],
        classifier=classifier,
        input_size=(channels, image_size or height, image_size or width),
        arguments=dict(getattr(model, "_autolora_arguments", {})),
    )
    model.reset_classifier(0)  # type: ignore[operator]
    features = int(getattr(model, "head_hidden_size", None) or model.num_features)  # type: ignore[arg-type]
    return RobustModel(Normalize(config["mean"], config["std"]), model, nn.Linear(features, classes), architecture)


def packaged_weights() -> Path:
    """Where the package keeps the weights of its robust backbone.

    Raises:
        InputError: If this installation lacks them.
    """
    path = Path(str(files("autolora.models") / "packaged" / PACKAGED_WEIGHTS))
    if not path.is_file():
        raise InputError(f"the packaged backbone is not in this installation ({path} is missing); install autolora again")
    return path


def _weights_file(weights: str) -> Path:
    return packaged_weights() if weights == PACKAGED else Path(weights)


def _local_dir(name: str) -> str:
    """Turn a folder that holds a timm model into timm's name for it."""
    return f"local-dir:{name}" if (Path(name) / "config.json").is_file() else name


def _create(
    name: str, weights: str, state: Mapping[str, Tensor] | None, image_size: int | None, *, meta: bool = False
) -> nn.Module:
    """Create the timm model with its own head, and load the weights into all of it."""
    arguments: dict[str, Any] = {}
    with torch.device("meta"):
        blank = _timm_model(name, {})
    config = blank.pretrained_cfg
    if config.get("fixed_input_size") and image_size not in (None, config["input_size"][-1]):
        arguments["img_size"] = image_size
    if meta:
        return blank
    if state is not None and (rows := _classes_in(state, config.get("classifier"))) is not None:
        arguments["num_classes"] = rows
    model = _timm_model(name, {**arguments, "pretrained": weights == "pretrained"})
    if state is not None:
        load_strictly(model, state, weights)
    arguments.pop("num_classes", None)
    model._autolora_arguments = arguments  # type: ignore[assignment]
    return model


def _timm_model(name: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, **arguments)
    except RuntimeError as error:
        if "Unknown model" in str(error):
            raise InputError(f"model {name!r} is unknown to timm{_suggestion(name)}; `autolora models` lists names") from None
        if "No pretrained weights" not in str(error):
            raise
        raise InputError(f"{_no_weights(name, 'timm has none for it')}") from None
    except (OSError, ValueError) as error:  # huggingface_hub and requests raise subclasses of OSError when offline
        if not arguments.get("pretrained"):
            raise InputError(f"model {name!r} cannot be built: {error}") from None
        raise InputError(_no_weights(name, f"{type(error).__name__}: could not be fetched")) from None


def _no_weights(name: str, reason: str) -> str:
    return (
        f"model {name!r}: no pre-trained weights ({reason}); go online, give a checkpoint with --weights FILE, "
        "start from random weights with --weights none, or leave --model out for the packaged robust backbone"
    )


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, timm.list_models(), n=3)
    return f"; did you mean {', '.join(close)}?" if close else ""


def _classes_in(state: Mapping[str, Tensor], classifier: str | None) -> int | None:
    """Classes of the checkpoint's own head."""
    weight = state.get(f"{classifier}.weight")
    return None if weight is None else len(weight)
