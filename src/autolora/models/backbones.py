"""Build a model from a name: any timm classification model, the packaged robust backbone, or a checkpoint's own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.layers.drop import DropPath
from torch import nn

from autolora.errors import InputError
from autolora.models.branches import evaluating
from autolora.models.bundle_config import check_arguments, check_bundle
from autolora.models.checkpoints import (
    AUTO,
    Checkpoint,
    Normalization,
    check_format,
    load_checkpoint,
    load_inner,
    sources,
)
from autolora.models.checkpoints.architectures import architecture_by_shapes
from autolora.models.checkpoints.prefixes import Inner
from autolora.models.checkpoints.sources import PACKAGED, PACKAGED_ARCHITECTURE, architecture_of, packaged_weights
from autolora.models.cifar_stem import CifarStemResNet
from autolora.models.creation import ARGUMENTS, TimmModel, create, require_hub
from autolora.models.robust import Architecture, Normalize, RobustModel
from autolora.models.upsampling import Upsampling
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


def build_model(
    name: str = PACKAGED,
    *,
    classes: int,
    weights: str = "auto",
    image_size: int | None = None,
    weights_format: str = AUTO,
    upsampling: Upsampling | None = None,
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
        upsampling: How images of ``image_size`` are enlarged for the backbone; None: it takes them as they are.

    Raises:
        InputError: If the name is unknown, the weights are out of reach or do not fit, or the model cannot take
            images of that size.
    """
    network = image_size if upsampling is None else upsampling.to
    shipped = timm_model(name, weights, network, weights_format)
    model = split(shipped, classes=classes, image_size=image_size, upsampling=upsampling)
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
    if _differ(model, checkpoint) and (inner := _inner(file, weights_format, architecture, image_size)) is not None:
        logger.info(f"weights {file}: {inner}")
        checkpoint = inner.checkpoint
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
        require_hub(name, _blueprint(source).pretrained_cfg.get("hf_hub_id"))


def native_size(name: str, weights_format: str = AUTO) -> int:
    """Side in pixels of the images that a model was made for: 32 for CIFAR models, mostly 224 for timm's.

    Raises:
        InputError: If the name is unknown, or a checkpoint does not tell its architecture.
    """
    return int(_blueprint(architecture_of(name, weights_format)).pretrained_cfg["input_size"][-1])


def split(
    model: TimmModel, *, classes: int, image_size: int | None = None, upsampling: Upsampling | None = None
) -> RobustModel:
    """Split a timm model into a backbone, which gives features (N, D), and a new head for ``classes`` classes.

    Images are of ``image_size``, or of the model's own; with ``upsampling`` they are enlarged for the backbone.
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
    network = size[-1] if upsampling is None else upsampling.to
    architecture = Architecture(
        name=config["architecture"],
        classifier=classifier,
        input_size=size,
        arguments={**config.get(ARGUMENTS, {}), **_size_argument(config, network), **_stem_argument(model)},
        upsampling=upsampling,
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
    if checkpoint is not None and checkpoint.architecture == name:
        check_arguments(Path("config.json"), checkpoint.arguments)
        arguments = {**checkpoint.arguments, **arguments}
    if checkpoint is not None and checkpoint.stem_padding is not None and isinstance(blueprint, CifarStemResNet):
        arguments["stem_padding"] = checkpoint.stem_padding
    if weights == "pretrained" and name.startswith("local-dir:"):
        check_bundle(Path(name.removeprefix("local-dir:")))
    elif weights == "pretrained":
        require_hub(name, config.get("hf_hub_id"))
    return create(name, {**arguments, "pretrained": weights == "pretrained"})


def _blueprint(name: str) -> TimmModel:
    """Build a model of shapes alone, with what timm knows about it: input size, normalisation, where weights are."""
    source, _, repository = name.partition(":")
    if source in ("hf-hub", "hf_hub"):
        require_hub(name, repository)
    with torch.device("meta"):
        return create(name, {})


def _differ(model: TimmModel, checkpoint: Checkpoint) -> bool:
    """Whether a name or a shape of a checkpoint is not the model's."""
    return any(misfits(model.state_dict(), checkpoint.state).values())


def _inner(file: Path, weights_format: str, architecture: str, image_size: int | None) -> Inner | None:
    """Find the one prefix in a file below which the weights fit an architecture."""

    def fits(checkpoint: Checkpoint) -> bool:
        with torch.device("meta"):
            return not _differ(_create(architecture, "none", image_size, checkpoint), checkpoint)

    return load_inner(file, weights_format, fits)


def _advice(model: TimmModel, checkpoint: Checkpoint) -> str:
    """Say what else the weights could be of, if they do not fit."""
    if not _differ(model, checkpoint):
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
    _, height, width = model.architecture.network_size
    option = "--image-size" if model.architecture.upsampling is None else "--upsample-to"
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros(1, *model.architecture.input_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"model {name!r} cannot take images of {height}x{width} ({error}); give another {option}"
        ) from None
