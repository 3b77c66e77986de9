"""``config.json`` of a folder with a model, read by someone who trusts nobody: timm would build whatever it says.

A name of an architecture and a few numbers can ask for any amount of memory or time, so they are bounded here, and
the model is counted before it is built.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch

from autolora.errors import InputError
from autolora.models.creation import CONFIG, create

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
MOST_CLASSES = 100_000
LARGEST_SIDE = 8192  # pixels
LARGEST_NUMBER = 8192  # among the arguments of an architecture
LONGEST_LIST = 16
SLACK = 1_000_000  # numbers that a model may have beyond those in its file, such as buffers that are computed


def read_config(config: Path) -> dict[str, Any]:
    """Read ``config.json`` of a model in timm's format.

    Raises:
        InputError: If it is none, names an architecture that is not known, or holds what no model has.
    """
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(
            f"{config} is damaged and cannot be read as JSON ({type(error).__name__}); fetch it again"
        ) from None
    if not isinstance(content, dict):
        raise _strange(config, "it is no JSON object")
    name = content.get("architecture")
    if not isinstance(name, str) or not timm.is_model(name):
        raise _strange(config, f"its architecture {name!r:.60} is unknown to timm; `autolora models` lists names")
    _check_numbers(config, content)
    _check_images(config, content.get("pretrained_cfg", {}))
    check_arguments(config, content.get("model_args") or {})
    return content


def check_bundle(folder: Path) -> None:
    """Look at a folder before timm builds the model in it: its settings, and that its weights can fill it.

    Raises:
        InputError: If ``config.json`` describes something else than what lies beside it.
    """
    read_config(folder / CONFIG)
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise InputError(f"{folder}: {WEIGHTS[0]} is not there; fetch or export the model again")
    with torch.device("meta"):
        model = create(f"local-dir:{folder}", {})
    numbers = sum(tensor.numel() for tensor in model.state_dict().values())
    if numbers > file.stat().st_size + SLACK:  # of a byte or more each
        raise _strange(folder / CONFIG, f"it describes {numbers:,} numbers, which {file.name} is too small to hold")


def _strange(config: Path, reason: str) -> InputError:
    return InputError(f"{config} is not what was exported: {reason}; fetch or export the model again")


def _check_numbers(config: Path, content: Mapping[str, Any]) -> None:
    for name, largest in (("num_classes", MOST_CLASSES), ("num_features", MOST_CLASSES)):
        value = content.get(name, 0)
        if type(value) is not int or not 0 <= value <= largest:
            raise _strange(config, f"{name}={value!r:.60}")
    names = content.get("label_names", [])
    if not isinstance(names, list) or not all(isinstance(label, str) for label in names):
        raise _strange(config, "label_names are no list of texts")


def _check_images(config: Path, about: Any) -> None:
    if not isinstance(about, dict) or not all(isinstance(name, str) for name in about):
        raise _strange(config, "pretrained_cfg is no JSON object")
    size = about.get("input_size", [3, 32, 32])
    if not isinstance(size, list) or len(size) != 3 or not all(type(n) is int and 0 < n <= LARGEST_SIDE for n in size):
        raise _strange(config, f"input_size={size!r:.60}")
    for name, low in (("mean", -math.inf), ("std", 0.0)):
        values = about.get(name, [1.0] * 3)
        if not isinstance(values, list) or len(values) not in (1, 3):
            raise _strange(config, f"{name}={values!r:.60}")
        if not all(type(value) in (int, float) and math.isfinite(value) and value > low for value in values):
            raise _strange(config, f"{name}={values!r:.60}")


def check_arguments(config: Path, arguments: Any) -> None:
    """Refuse arguments of an architecture that no model has.

    Raises:
        InputError: If they are no numbers, texts and short lists of them, or too large.
    """
    if not isinstance(arguments, dict):
        raise _strange(config, "model_args is no JSON object")
    for name, value in arguments.items():
        values = value if isinstance(value, list) else [value]
        plain = all(value is None or isinstance(value, str | bool | int | float) for value in values)
        numbers = [value for value in values if isinstance(value, int | float)]
        if not plain or len(values) > LONGEST_LIST or any(not abs(number) <= LARGEST_NUMBER for number in numbers):
            raise _strange(config, f"model_args has {name}={value!r:.60}")
