"""What a file of weights holds, and what a format makes of it: weights by timm's names, and what images they expect."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from torch import Tensor

from autolora.errors import InputError
from autolora.models.checkpoints.files import read_file, reporting, tensors_in
from autolora.models.checkpoints.names import without_wrappers

__all__ = ["IMAGENET", "RAW", "Checkpoint", "Contents", "Format", "Misfit", "Normalization", "read_contents"]

CONTAINERS = (
    "state_dict_dual",  # DynACL++: both batch norms, beside a copy with one
    "state_dict",
    "model",
    "model_state_dict",
    "state_dict_ema",
    "net",
    "last",
    "best",
)


class Misfit(Exception):
    """A file is not of a format; the message says why."""


@dataclass(frozen=True)
class Normalization:
    """(x - mean) / std per channel, which the weights expect of images in [0, 1].

    Args:
        mean: Of each channel.
        std: Of each channel.
        origin: Who says so: the file, or the format.

    Raises:
        Misfit: If no image can be normalised so.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str

    def __post_init__(self) -> None:
        values = (*self.mean, *self.std)
        if not all(isinstance(value, int | float) and isfinite(value) for value in values) or min(self.std) <= 0:
            raise Misfit(f"it would normalise by mean {self.mean} and std {self.std}")

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"mean ({mean}), std ({std}), {self.origin}"


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "ImageNet's, as this format has it")
RAW = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "none: images go in as they are, as this format has it")


@dataclass(frozen=True)
class Contents:
    """What a file holds, before anyone says of what format it is.

    Args:
        root: All of it.
        state: The tensors of the container that holds the weights, without the prefixes of wrappers.
        containers: Names of what holds weights in it; the first was opened.
        config: The ``config.json`` that timm writes beside its weights, or nothing.
    """

    root: Mapping[Any, Any]
    state: dict[str, Tensor]
    containers: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, *parts: str) -> bool:
        """Whether a name of a tensor begins with one of these."""
        return any(name.startswith(parts) for name in self.state)


@dataclass(frozen=True)
class Checkpoint:
    """Weights for an architecture of timm's.

    Args:
        state: Tensors by timm's names; what only training needed is left out.
        normalization: What the weights expect; None leaves it to the architecture, as timm records it.
        stem_padding: Of a 3x3 stem; None leaves it to the architecture.
        architecture: timm's name, if the file records one.
        arguments: With what that was built, if it is recorded.
        format: Name of the format that it was read as.
        containers: Names of what holds weights in the file; the first was read.
    """

    state: dict[str, Tensor]
    normalization: Normalization | None = None
    stem_padding: int | None = None
    architecture: str | None = None
    format: str = ""
    containers: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def has_head(self, classifier: str) -> bool:
        """Whether weights of the last layer, of this name, are among them."""
        return f"{classifier}.weight" in self.state


@dataclass(frozen=True)
class Format:
    """A layout of checkpoint files.

    Args:
        name: For ``--weights-format``.
        origin: Who writes such files, and where they are.
        fits: Whether contents look like it. At most one format fits a file of any known writer.
        read: Makes weights of the contents; raises :class:`Misfit`.
    """

    name: str
    origin: str
    fits: Callable[[Contents], bool]
    read: Callable[[Contents], Checkpoint]


def read_contents(path: str | Path) -> Contents:
    """Read a file of weights: safetensors, torch's old and new files, or a pickle. No code in it runs.

    Raises:
        InputError: If it is absent, cannot be read, names what is not known to be harmless, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights {path}: no such file; give a checkpoint file, 'pretrained', 'packaged' or 'none'")
    with reporting(path):
        content = read_file(path)
        root = content if isinstance(content, Mapping) else {}
        opened = {name: state for name in CONTAINERS if (state := tensors_in(root.get(name)))}
        state = next(iter(opened.values())) if opened else tensors_in(root)
    if not state:
        raise InputError(f"weights {path}: no tensors in it; give a file that holds a state dict with --weights FILE")
    return Contents(root, without_wrappers(state), tuple(opened), _config(path))


def _config(path: Path) -> Mapping[str, Any]:
    """Read what timm wrote beside weights, if these are its own: it always gives both files the same names.

    Raises:
        InputError: If it is damaged; without it, images would be normalised otherwise than the weights expect.
    """
    config = path.parent / "config.json"
    if path.name not in ("model.safetensors", "pytorch_model.bin") or not config.is_file():
        return {}
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(
            f"{config} is damaged and cannot be read as JSON ({type(error).__name__}); fetch it again, or move the "
            "weights to a folder without it"
        ) from None
    return content if isinstance(content, dict) and isinstance(content.get("pretrained_cfg"), dict) else {}
