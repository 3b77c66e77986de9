"""Presets: options that make a run follow a published protocol, each a YAML file whose header says where from."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from autolora.errors import InputError
from autolora.experiments.config import suggestion

FOLDER = Path(str(files("autolora.experiments") / "preset_files"))


def preset_names() -> list[str]:
    """Return the names of the presets, in order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset_file(name: str) -> Path:
    """Return the file of a preset: YAML that ``--config`` reads.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in preset_names():
        raise InputError(f"preset {name!r} is unknown{suggestion(name, preset_names())}")
    return FOLDER / f"{name}.yaml"


def preset_summary(name: str) -> str:
    """Return the first sentence of a preset's header.

    Raises:
        InputError: If there is none of that name.
    """
    lines = preset_file(name).read_text(encoding="utf-8").splitlines()
    header = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    return header.partition(". ")[0].rstrip(".") + "."


def with_preset(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a preset, changed by those that are given.

    A mapping, as ``method_options`` is, changes the preset's entry by entry, like ``--method-options.beta 3`` on the
    command line; ``None`` takes its place.

    Raises:
        InputError: If there is no preset of that name.
    """
    merged: dict[str, Any] = yaml.safe_load(preset_file(name).read_text(encoding="utf-8"))
    for key, value in options.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = {**merged[key], **value} if both else value
    return merged
