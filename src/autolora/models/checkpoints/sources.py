"""What MODEL and ``--weights`` stand for: which architecture of timm's, and which file its numbers come from.

MODEL is ``packaged``, a name of timm's, a run or another folder with a model in timm's format, a name of the collection
of Salman et al., or a checkpoint file that leaves no doubt about its architecture.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import timm

from autolora.errors import InputError
from autolora.models.bundle_config import read_config
from autolora.models.checkpoints import Checkpoint, load_checkpoint, load_inner
from autolora.models.checkpoints.architectures import architecture_by_shapes, fits_architecture
from autolora.models.checkpoints.names import stem_size
from autolora.models.checkpoints.salman import COLLECTION, REPOSITORY, file_of, is_salman
from autolora.models.creation import CONFIG
from autolora.models.hub import fetch, require_file

__all__ = [
    "PACKAGED",
    "PACKAGED_ARCHITECTURE",
    "architecture_of",
    "packaged_weights",
    "require_weights",
    "resolve_weights",
    "weights_file",
]

PACKAGED = "packaged"  # as a model: the shipped architecture with its weights
PACKAGED_ARCHITECTURE = "resnet20w24_cifar"
PACKAGED_WEIGHTS = "resnet20w24_cifar10_linf.safetensors"
CIFAR_STEM = 3  # side of its kernel
SUFFIXES = (".pt", ".pth", ".ckpt", ".tar", ".th", ".bin", ".pkl", ".safetensors")  # of files of weights
ORG_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")


def resolve_weights(name: str, weights: str) -> str:
    """Replace ``"auto"``: what is packaged or in the file that MODEL is, and timm's pre-trained ones for its names."""
    if weights != "auto":
        return weights
    return name if name == PACKAGED or is_salman(name) or _is_file(name) else "pretrained"


def weights_file(weights: str) -> Path:
    """Return the file that holds the weights: a run stands for the model in it, a name of a collection for a download.

    Raises:
        InputError: If it has to be fetched and cannot, or is a folder without a finished run.
    """
    if weights == PACKAGED:
        return packaged_weights()
    if is_salman(weights):
        return fetch(REPOSITORY, file_of(weights))
    shipped = Path(weights) / "model" / "model.safetensors"
    if not shipped.is_file() and Path(weights).is_dir():
        raise InputError(
            f"weights {weights}: a folder without a finished run in it; give a run folder, or a file of weights"
        )
    return shipped if shipped.is_file() else Path(weights)


def require_weights(weights: str, weights_format: str) -> None:
    """Find out at once whether a file of weights is there and can be read; nothing is fetched.

    Raises:
        InputError: If it is absent or out of reach, cannot be read, or is of no clear format.
    """
    if is_salman(weights):
        require_file(REPOSITORY, file_of(weights))
    else:
        load_checkpoint(weights_file(weights), weights_format)


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


def architecture_of(name: str, weights_format: str) -> str:
    """Return timm's name for a model: in its registry, on the hub (``hf-hub:``) or in a folder (``local-dir:``).

    Raises:
        InputError: If it is a folder without a model, or with one that cannot be, or a file that does not say what it
            holds weights of.
    """
    if name == PACKAGED:
        return PACKAGED_ARCHITECTURE
    if is_salman(name):
        file_of(name)
        return COLLECTION[name]
    if _is_file(name):
        return _architecture_in(name, Path(name).stat().st_mtime_ns, weights_format)
    for folder in (Path(name), Path(name) / "model"):
        if (folder / CONFIG).is_file():
            read_config(folder / CONFIG)  # before timm builds what it says
            return f"local-dir:{folder}"
    if Path(name).is_dir() and not timm.is_model(name):
        raise InputError(f"model {name!r}: no model in this folder; give a run folder that is finished, or its model/")
    if ":" not in name and (name.startswith((".", "~")) or "/" in name or name.lower().endswith(SUFFIXES)):
        hub = f", or hf-hub:{name} for that of the Hugging Face hub" if ORG_NAME.fullmatch(name) else ""
        raise InputError(
            f"model {name!r}: no such run folder or file; look how it is written and where this was started{hub}"
        )
    return name


def _is_file(name: str) -> bool:
    return Path(name).is_file() and not timm.is_model(name)


@lru_cache(maxsize=8)
def _architecture_in(file: str, _: int, weights_format: str) -> str:
    """Find the architecture in a checkpoint, once for each version of the file: what it records, else by its shapes."""
    checkpoint = load_checkpoint(file, weights_format)
    name = _told(checkpoint)
    if name is None and (inner := load_inner(file, weights_format, lambda found: _told(found) is not None)) is not None:
        checkpoint, name = inner.checkpoint, _told(inner.checkpoint)
    if name is None:
        raise InputError(
            f"{file} is a file of weights, which does not say what they are weights of; name the architecture "
            f"(`autolora models`) as the model, and give the file with --weights {file}"
        )
    if name == checkpoint.architecture:
        return name
    four_stages = "layer4.0.conv1.weight" in checkpoint.state
    if four_stages and stem_size(checkpoint.state) == CIFAR_STEM and checkpoint.stem_padding is None:
        raise InputError(
            f"two architectures fit {file}: {name}, whose stem pads by 1, and the same with solo-learn's stem, which "
            f"pads by 2; name {name} as the model and give the file with --weights {file} for the first, or "
            "--weights-format solo-learn for the second"
        )
    return name


def _told(checkpoint: Checkpoint) -> str | None:
    """Return the architecture that a checkpoint records, if its weights fit it, else the one that its shapes tell."""
    recorded = checkpoint.architecture
    if (
        recorded is not None
        and timm.is_model(recorded)
        and fits_architecture(recorded, checkpoint.state, checkpoint.arguments)
    ):
        return recorded
    return architecture_by_shapes(checkpoint.state)
