"""Checkpoints of other people: read without running code, recognised, and made into weights for timm's models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autolora.errors import InputError
from autolora.models.checkpoints.contents import Checkpoint, Contents, Format, Misfit, Normalization, read_contents
from autolora.models.checkpoints.dual_norm import ACL, ADVCL
from autolora.models.checkpoints.robustness import ROBUSTNESS
from autolora.models.checkpoints.solo import DEACL, SOLO_LEARN
from autolora.models.checkpoints.zoo import CIFAR_RESNET, PLAIN, ROBUSTBENCH, TIMM, TORCHVISION

__all__ = ["AUTO", "FORMATS", "Checkpoint", "Format", "Normalization", "check_format", "load_checkpoint"]

AUTO = "auto"
DISTINCT = (ROBUSTNESS, SOLO_LEARN, ACL, ADVCL, DEACL, ROBUSTBENCH, TORCHVISION, CIFAR_RESNET)
FORMATS: dict[str, Format] = {item.name: item for item in (*DISTINCT, TIMM, PLAIN)}


def load_checkpoint(path: str | Path, format: str = AUTO) -> Checkpoint:
    """Read a file of weights and convert it to timm's names. No code in it runs.

    Args:
        path: The file.
        format: Name of its format; ``"auto"`` recognises it from the content.

    Raises:
        InputError: If the file cannot be read or would run code, its format is not clear, or it is not of the format.
    """
    check_format(format)
    contents = read_contents(path)
    chosen = _recognise(contents, path) if format == AUTO else FORMATS[format]
    try:
        return replace(chosen.read(contents), format=chosen.name, containers=contents.containers)
    except Misfit as misfit:
        raise InputError(
            f"weights {path}: not of the format {chosen.name}, since {misfit}; leave --weights-format out to have it "
            "recognised"
        ) from None


def check_format(name: str) -> None:
    """Refuse a format that does not exist.

    Raises:
        InputError: With the names that do.
    """
    if name != AUTO and name not in FORMATS:
        raise InputError(f"weights-format={name!r} is unknown; there are {AUTO}, {', '.join(FORMATS)}")


def _recognise(contents: Contents, path: str | Path) -> Format:
    """Find the one format that contents look like; what timm recorded about its own file counts first."""
    if contents.config:
        return TIMM
    found = [item for item in DISTINCT if item.fits(contents)]
    if len(found) > 1:
        names = [item.name for item in found]
        raise InputError(
            f"weights {path}: it can be of the formats {' and '.join(names)}, which are read differently; say which "
            f"with --weights-format {names[0]} (or {', '.join(names[1:])})"
        )
    if found:
        return found[0]
    return TIMM if TIMM.fits(contents) else PLAIN
