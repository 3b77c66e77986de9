"""Build a model from a name: any timm classification model, the packaged robust backbone, or a checkpoint's own."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers.drop import DropPath
from torch import nn

from autolora.errors import InputError
from autolora.models.branches import evaluating
from autolora.models.checkpoints import AUTO, Checkpoint, Normalization, check_format, load_checkpoint, sources
from autolora.models.checkpoints.architectures import architecture_by_shapes
from autolora.models.checkpoints.sources import PACKAGED, PACKAGED_ARCHITECTURE, architecture_of, packaged_weights
from autolora.models.cifar_stem import CifarStemResNet
from autolora.models.hub import within_reach
from autolora.models.robust import Architecture, Normalize, RobustModel
from autolora.models.weights import ADVICE, load_strictly, misfits

__all__ = [
    "PACKAGED",
    "PACKAGED_ARCHITECTURE",
    "TimmModel",
    "build_model",
    "check_weights",
    "native_size",
    "packaged_weights",
    "split",
    "timm_model",
]

logger = logging.getLogger(__name__)

TimmModel = Any  # an nn.Module with timm's interface (pretrained_cfg, reset_classifier, ...), which timm does not type


def build_model(
    name: str = PACKAGED,
    *,
    classes: int,
    weights: str = "auto",
    image_size: int | None = None,
    weights_format: str = AUTO,
) -> RobustModel:
    """Build normalise, backbone and a new head.

    The head is torch's default linear layer, as in the papers: the checkpoint's own head, for its own classes, is read
    and left out.

    Args:
        name: ``"packaged"``, a timm name (``resnet18``, ``hf-hub:...``), a folder that holds a model in timm's format
            (a finished run, or its ``model/``), ``salman2020:NAME``, or a checkpoint file.
        classes: Classes K of the new head.
        weights: ``"auto"`` (those that the name brings, else timm's pre-trained ones), ``"pretrained"``,
            ``"packaged"``, ``"none"`` (random), a checkpoint file, ``salman2020:NAME``, or a run folder.
        image_size: Side of the square input in pixels; None takes the model's own.
        weights_format: Of the checkpoint, see ``models.checkpoints``; ``"auto"`` recognises it.

    Raises:
        InputError: If the name is unknown, the weights are out of reach or do not fit, or the model cannot take
            images of that size.
    """
    model = split(timm_model(name, weights, image_size, weights_format), classes=classes, image_size=image_size)
    _check_size(model, name)
    return model


def timm_model(
    name: str, weights: str = "auto", image_size: int | None = None, weights_format: str = AUTO
) -> TimmModel:
    """Build timm's own model, with the head that belongs to its weights, if one does; see :func:`build_model`."""
    check_format(weights_format)
    architecture, weights = architecture_of(name, weights_format), sources.resolve_weights(name, weights)
    if weights in ("none", "pretrained"):
        return _create(architecture, weights, image_size)
    file = sources.weights_file(weights)
    checkpoint = load_checkpoint(file, weights_format)
    model = _create(architecture, "none", image_size, checkpoint)
    load_strictly(model, checkpoint.state, str(file), _advice(model, checkpoint))
    if checkpoint.normalization is not None:
        values = checkpoint.normalization
        model.pretrained_cfg = {**model.pretrained_cfg, "mean": values.mean, "std": values.std}
    if weights != PACKAGED:
        logger.info(f"weights {file}: {_description(model, checkpoint)}")
    return model


def check_weights(name: str, weights: str = "auto", weights_format: str = AUTO) -> None:
    """Find out at once whether the weights that :func:`build_model` would load are there.

    Raises:
        InputError: If a file is absent, cannot be read or is of no clear format, or the hub is needed and out of reach.
    """
    check_format(weights_format)
    weights = sources.resolve_weights(name, weights)
    if weights not in ("none", "pretrained"):
        sources.require_weights(weights, weights_format)
    elif weights == "pretrained" and not (source := architecture_of(name, weights_format)).startswith("local-dir:"):
        _require_hub(name, _blueprint(source).pretrained_cfg.get("hf_hub_id"))


def native_size(name: str, weights_format: str = AUTO) -> int:
    """Side in pixels of the images that a model was made for: 32 for CIFAR models, mostly 224 for timm's.

    Raises:
        InputError: If the name is unknown, or a checkpoint does not tell its architecture.
    """
    return int(_blueprint(architecture_of(name, weights_format)).pretrained_cfg["input_size"][-1])


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
        arguments={**_size_argument(config, size[-1]), **_stem_argument(model)},
    )
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0  # two passes of one step are compared, and must not skip different layers
    model.reset_classifier(0)
    features = int(getattr(model, "head_hidden_size", None) or model.num_features)
    return RobustModel(Normalize(config["mean"], config["std"]), model, nn.Linear(features, classes), architecture)


def _create(name: str, weights: str, image_size: int | None, checkpoint: Checkpoint | None = None) -> TimmModel:
    """Create the timm model with its own head: timm's, or one as the checkpoint has it, which may be none."""
    blueprint = _blueprint(name)
    config: Mapping[str, Any] = blueprint.pretrained_cfg
    arguments = _size_argument(config, image_size or config["input_size"][-1])
    classifier = config.get("classifier")
    if checkpoint is not None and isinstance(classifier, str):
        head = checkpoint.state.get(f"{classifier}.weight")
        arguments["num_classes"] = len(head) if head is not None and head.dim() else 0
    if checkpoint is not None and checkpoint.stem_padding is not None and isinstance(blueprint, CifarStemResNet):
        arguments["stem_padding"] = checkpoint.stem_padding
    if weights == "pretrained" and not name.startswith("local-dir:"):
        _require_hub(name, config.get("hf_hub_id"))
    return _timm_model(name, {**arguments, "pretrained": weights == "pretrained"})


def _blueprint(name: str) -> TimmModel:
    """Build a model of shapes alone, with what timm knows about it: input size, normalisation, where weights are."""
    source, _, repository = name.partition(":")
    if source in ("hf-hub", "hf_hub"):
        _require_hub(name, repository)
    with torch.device("meta"):
        return _timm_model(name, {})


def _advice(model: TimmModel, checkpoint: Checkpoint) -> str:
    """Say what else the weights could be of, if they do not fit."""
    if not any(misfits(model.state_dict(), checkpoint.state).values()):
        return ADVICE
    other = architecture_by_shapes(checkpoint.state)
    read_as = f"(they were read in the format {checkpoint.format})"
    return f"{ADVICE} {read_as}" if other is None else f"They fit {other}; name it with --model {other} {read_as}"


def _description(model: TimmModel, checkpoint: Checkpoint) -> str:
    """Say how a checkpoint was read, and what its model does to images."""
    config: Mapping[str, Any] = model.pretrained_cfg
    values = checkpoint.normalization or Normalization(config["mean"], config["std"], "the architecture's in timm")
    parts = [f"format {checkpoint.format}", config["architecture"], f"normalisation {values}"]
    parts += [f"stem padding {checkpoint.stem_padding}"] if _stem_argument(model) else []
    parts += [f"{' is taken, not '.join(checkpoint.containers)}"] if len(checkpoint.containers) > 1 else []
    parts += [] if checkpoint.has_head(str(config.get("classifier"))) else ["no head in it"]
    return "; ".join(parts)


def _size_argument(config: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return the argument that fixes the input size of a model whose parameters depend on it, such as a ViT."""
    return {"img_size": size} if config.get("fixed_input_size") else {}


def _stem_argument(model: TimmModel) -> dict[str, int]:
    """Return the argument that builds the stem again, where there are several of the same shape."""
    return model.stem_arguments if isinstance(model, CifarStemResNet) else {}


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
