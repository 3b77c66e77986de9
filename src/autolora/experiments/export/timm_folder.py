"""A folder that timm loads, with a wrapper that takes images in [0, 1] and the code of what timm does not have."""

from __future__ import annotations

import inspect
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm

from autolora.errors import InputError
from autolora.experiments.export import robust_model
from autolora.experiments.export.product import Product
from autolora.experiments.result import write_atomically, write_json
from autolora.models import RobustModel
from autolora.models.bundle import save_bundle

WRAPPER = "robust_model.py"
OF_OTHER_WEIGHTS = ("test_input_size", "test_crop_pct", "test_pool_size")  # timm's advice for its own pre-trained ones


def write_timm(product: Product, folder: Path) -> None:
    """Write ``config.json``, ``model.safetensors`` and the wrapper.

    Raises:
        InputError: If neither timm nor this package has the architecture.
    """
    write_network(product.model, folder, product.classes, product.record)
    if product.is_ours:
        _say_how_images_are_cut(folder / robust_model.CONFIG, product)
    write_wrapper(folder)


def write_network(model: RobustModel, folder: Path, classes: Sequence[str], record: Mapping[str, Any]) -> None:
    """Write what timm loads, and the code of the architecture if timm does not have it.

    Raises:
        InputError: If neither timm nor this package has the architecture.
    """
    source = foreign_source(model.architecture.name)
    save_bundle(model, folder, classes, record)
    if source is not None:
        write_atomically(folder / robust_model.ARCHITECTURE, source)


def write_wrapper(folder: Path) -> None:
    """Write the wrapper: the module of this package as it is, so that nothing of a model becomes code."""
    write_atomically(folder / WRAPPER, inspect.getsource(robust_model))


def foreign_source(architecture: str) -> str | None:
    """Return the code of an architecture that this package has added to timm; None for timm's own.

    Raises:
        InputError: If it is someone else's: whether its file works alone is not known here.
    """
    module = timm.model_entrypoint(architecture).__module__
    if module.startswith("timm."):
        return None
    if not module.startswith("autolora."):
        raise InputError(
            f"architecture {architecture!r} comes from {module}, and neither timm nor this package can build it; use "
            "--format onnx, which needs no code"
        )
    return inspect.getsource(sys.modules[module])


def crop_share(size: int, shorter: int) -> float:
    """Return timm's ``crop_pct``, of which it makes the shorter side again: floor(size / crop_pct)."""
    share = size / shorter
    return share if math.floor(size / share) == shorter else size / (shorter + 0.5)  # rounding may lose a pixel


def _say_how_images_are_cut(config: Path, product: Product) -> None:
    """Make timm's own transform bring images to size as they were in training and evaluation.

    Of a model that enlarges its images, it can only do that: enlarge those that are of their size already.
    """
    content, architecture = json.loads(config.read_text(encoding="utf-8")), product.model.architecture
    if architecture.upsampling is None:
        way, share = "bilinear", crop_share(architecture.input_size[-1], product.shorter_side)
    else:
        way, share = architecture.upsampling.mode, 1.0
    cut = {"interpolation": way, "crop_pct": share, "crop_mode": "center"}
    kept = {name: value for name, value in content["pretrained_cfg"].items() if name not in OF_OTHER_WEIGHTS}
    write_json(config, {**content, "pretrained_cfg": {**kept, **cut}})
