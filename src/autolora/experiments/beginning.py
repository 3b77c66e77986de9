"""The model that a run begins with, and the size of its images; an export builds it again."""

from __future__ import annotations

from dataclasses import replace

import torch

from autolora.errors import InputError
from autolora.experiments.config import RunConfig
from autolora.models import RobustModel, Upsampling, build_model, native_size
from autolora.models.adapter_files import load_adapter
from autolora.models.adapters import merge
from autolora.models.bundle import native_upsampling


def first_model(config: RunConfig, classes: int) -> RobustModel:
    """Build the model that a run begins with, its adapter merged; sets torch's seed to the run's.

    Args:
        config: The run's options.
        classes: Classes of the new head.

    Raises:
        InputError: If the model, its weights or the adapter are out of reach, or do not fit.
    """
    image_size, upsampling = sizes(config)
    torch.manual_seed(config.seed)  # which random weights start from as well
    model = build_model(
        config.model,
        classes=classes,
        weights=config.weights,
        image_size=image_size,
        weights_format=config.weights_format,
        upsampling=upsampling,
    )
    if config.adapter is not None:
        merge(load_adapter(config.adapter), model)
    if config.head == "zero":
        torch.nn.init.zeros_(model.head.weight)
        torch.nn.init.zeros_(model.head.bias)
    return model


def sizes(config: RunConfig) -> tuple[int, Upsampling | None]:
    """Return the side of the images in pixels, and how the model enlarges them, if it does.

    What is not said is as the model has it. One that enlarges its images, and is given images that are large enough,
    takes them as they are.

    Raises:
        InputError: If there is no such model, or nothing to enlarge.
    """
    images, own = native_upsampling(config.model, config.weights_format) or (None, None)
    asked = _asked(config, own)
    images = config.image_size or images
    if images is None and asked is not None:
        raise InputError(
            f"upsample-to={asked.to}: say how large images are before they are enlarged with --image-size, such as 32"
        )
    images = images or native_size(config.model, config.weights_format)
    if asked is not None and config.upsample_to is not None:
        asked.check(images)
    return images, asked if asked is None or images < asked.to else None


def _asked(config: RunConfig, own: Upsampling | None) -> Upsampling | None:
    if config.upsample_to is not None:
        return Upsampling(config.upsample_to, config.upsampling or (own.mode if own is not None else "nearest"))
    if config.upsampling is None or own is not None:
        return own if own is None or config.upsampling is None else replace(own, mode=config.upsampling)
    raise InputError(f"upsampling={config.upsampling}: say to how many pixels with --upsample-to, such as 224")
