"""Build a model from a name: any timm classification model, or the robust backbone that the package ships."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.branches import evaluating
from autolora.models.hub import within_reach
from autolora.models.robust import Architecture, Normalize, RobustModel
from autolora.models.weights import load_strictly, read_state

TimmModel = Any  # an nn.Module with timm's interface (pretrained_cfg, reset_classifier, ...), which timm does not type

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
        name: ``"packaged"``, a timm name (``resnet18``, ``hf-hub:...``), or a folder that holds a model in timm's
            format: a finished run, or its ``model/``.
        classes: Classes K of the new head.
        weights: ``"auto"`` (packaged ones for the packaged model, else timm's pre-trained ones), ``"pretrained"``,
            ``"packaged"``, ``"none"`` (random), a checkpoint file, or a run folder.
        image_size: Side of the square input in pixels; None takes the model's own.

    Raises:
        InputError: If the name is unknown, the weights are out of reach or do not fit, or the model cannot take
            images of that size.
    """
    model = split(timm_model(name, weights, image_size), classes=classes, image_size=image_size)
    _check_size(model, name)
    return model


def timm_model(name: str, weights: str = "auto", image_size: int | None = None) -> TimmModel:
    """Build timm's own model, with the head that belongs to its weights; see :func:`build_model`."""
    architecture_name = PACKAGED_ARCHITECTURE if name == PACKAGED else _local_dir(name)
    weights = resolve_weights(name, weights)
    state = None if weights in ("none", "pretrained") else read_state(_weights_file(weights))
    return _create(architecture_name, weights, state, image_size)


def resolve_weights(name: str, weights: str) -> str:
    """Replace ``"auto"``: the packaged weights for the packaged model, timm's pre-trained ones for every other."""
    if weights != "auto":
        return weights
    return PACKAGED if name == PACKAGED else "pretrained"


def check_weights(name: str, weights: str = "auto") -> None:
    """Find out at once whether the weights that :func:`build_model` would load are there.

    Raises:
        InputError: If a file is absent, or the hub is needed and out of reach.
    """
    weights = resolve_weights(name, weights)
    if weights not in ("none", "pretrained"):
        read_state(_weights_file(weights))
    elif weights == "pretrained" and not (source := _local_dir(name)).startswith("local-dir:"):
        _require_hub(name, _config(source).get("hf_hub_id"))


def native_size(name: str) -> int:
    """Side in pixels of the images that a model was made for: 32 for CIFAR models, mostly 224 for timm's.

    Raises:
        InputError: If the name is unknown.
    """
    return int(_config(PACKAGED_ARCHITECTURE if name == PACKAGED else _local_dir(name))["input_size"][-1])


def split(model: TimmModel, *, classes: int, image_size: int | None = None) -> RobustModel:
    """Split a timm model into a backbone, which gives features (N, D), and a new head for ``classes`` classes.

    Stochastic depth, which some of timm's models have by default, is switched off.

    Raises:
        InputError: If timm does not name exactly one classifier layer.
    """
    config: Mapping[str, Any] = model.pretrained_cfg
    classifier = config.get("classifier")
    if not isinstance(classifier, str):
        raise InputError(f"{config.get('architecture')}: timm names {classifier!r} as its classifier, not one layer")
    channels, height, width = config["input_size"]
    size = (channels, image_size or height, image_size or width)
    architecture = Architecture(
        name=config["architecture"],
        classifier=classifier,
        input_size=size,
        arguments=_size_argument(config, size[-1]),
    )
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0  # two passes of one step are compared, and must not skip different layers
    model.reset_classifier(0)
    features = int(getattr(model, "head_hidden_size", None) or model.num_features)
    return RobustModel(Normalize(config["mean"], config["std"]), model, nn.Linear(features, classes), architecture)


def packaged_weights() -> Path:
    """Where the package keeps the weights of its robust backbone.

    Raises:
        InputError: If this installation lacks them.
    """
    path = Path(str(files("autolora.models") / "packaged" / PACKAGED_WEIGHTS))
    if not path.is_file():
        raise InputError(
            f"the packaged backbone is not in this installation ({path} is missing); install autolora again"
        )
    return path


def _weights_file(weights: str) -> Path:
    """Return the file that holds the weights: a run folder stands for the model in it."""
    if weights == PACKAGED:
        return packaged_weights()
    shipped = Path(weights) / "model" / "model.safetensors"
    return shipped if shipped.is_file() else Path(weights)


def _local_dir(name: str) -> str:
    """Turn a folder that holds a timm model, or a run that does, into timm's name for it."""
    for folder in (Path(name), Path(name) / "model"):
        if (folder / "config.json").is_file():
            return f"local-dir:{folder}"
    if Path(name).is_dir() and not timm.is_model(name):
        raise InputError(f"model {name!r}: no model in this folder; give a run folder that is finished, or its model/")
    return name


def _create(name: str, weights: str, state: Mapping[str, Tensor] | None, image_size: int | None) -> TimmModel:
    """Create the timm model with its own head, and load the weights into all of it."""
    config = _config(name)
    arguments = _size_argument(config, image_size or config["input_size"][-1])
    if state is not None and (rows := _classes_in(state, config.get("classifier"))) is not None:
        arguments["num_classes"] = rows
    if weights == "pretrained" and not name.startswith("local-dir:"):
        _require_hub(name, config.get("hf_hub_id"))
    model = _timm_model(name, {**arguments, "pretrained": weights == "pretrained"})
    if state is not None:
        load_strictly(model, state, weights)
    return model


def _config(name: str) -> Mapping[str, Any]:
    """Return what timm knows about a model: input size, normalisation, classifier, where its weights are."""
    source, _, repository = name.partition(":")
    if source in ("hf-hub", "hf_hub"):
        _require_hub(name, repository)
    with torch.device("meta"):
        return _timm_model(name, {}).pretrained_cfg


def _size_argument(config: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return the argument that fixes the input size of a model whose parameters depend on it, such as a ViT."""
    return {"img_size": size} if config.get("fixed_input_size") else {}


def _check_size(model: RobustModel, name: str) -> None:
    """Show the model one image before anyone relies on it."""
    channels, height, width = model.architecture.input_size
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros(1, channels, height, width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"model {name!r} cannot take images of {height}x{width} ({error}); give another --image-size"
        ) from None


def _timm_model(name: str, arguments: dict[str, Any]) -> TimmModel:
    try:
        return timm.create_model(name, **arguments)
    except RuntimeError as error:
        if "Unknown model" in str(error):
            raise InputError(
                f"model {name!r} is unknown to timm{_suggestion(name)}; `autolora models` lists names"
            ) from None
        if "No pretrained weights" not in str(error):
            raise
        raise InputError(f"{_no_weights(name, 'timm has none for it')}") from None
    except (OSError, ValueError) as error:  # huggingface_hub and requests raise subclasses of OSError when offline
        if not arguments.get("pretrained"):
            raise InputError(f"model {name!r} cannot be built: {error}") from None
        raise InputError(_no_weights(name, f"{type(error).__name__}: could not be fetched")) from None


def _require_hub(name: str, repository: str | None) -> None:
    """Say at once that weights cannot be fetched."""
    try:
        reachable = repository is None or within_reach(repository)
    except ValueError as error:  # the hub's client checks names
        raise InputError(f"model {name!r} is no name on the hub: {error}") from None
    if not reachable:
        reason = f"{repository} is not in this machine's cache, and the hub cannot be reached"
        raise InputError(_no_weights(name, reason))


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
