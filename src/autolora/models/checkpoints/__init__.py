"""Checkpoints of other people: read without running code, recognised, and made into weights for timm's models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from autolora.errors import InputError
from autolora.models.checkpoints.contents import Checkpoint, Contents, Format, Misfit, Normalization, read_contents
from autolora.models.checkpoints.dual_norm import ACL, ADVCL
from autolora.models.checkpoints.prefixes import Inner, inner_contents
from autolora.models.checkpoints.robustness import ROBUSTNESS
from autolora.models.checkpoints.solo import DEACL, SOLO_LEARN
from autolora.models.checkpoints.zoo import CIFAR_RESNET, PLAIN, ROBUSTBENCH, TIMM, TORCHVISION

__all__ = ["AUTO", "FORMATS", "Checkpoint", "Format", "Normalization", "check_format", "load_checkpoint", "load_inner"]

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
    return _checkpoint(read_contents(path), path, format)


def load_inner(path: str | Path, format: str, fits: Callable[[Checkpoint], bool]) -> Inner | None:
    """Read the weights below a prefix that a training script's module puts before them, such as ``model.``.

    Args:
        path: The file, whose weights do not fit as they are.
        format: Name of its format, or ``"auto"``.
        fits: Whether a checkpoint has every name and every shape of the model that is meant.

    Returns:
        The one prefix below which they fit, and what is below it; None if there is none.

    Raises:
        InputError: If the file cannot be read, or there are several, as of a student and a teacher.
    """
    found: list[Inner] = []
    for prefix, contents, left_out in inner_contents(read_contents(path)):
        try:
            checkpoint = _checkpoint(contents, path, format)
        except InputError:
            continue
        if fits(checkpoint):
            found.append(Inner(prefix, checkpoint, left_out))
    if len(found) > 1:
        prefixes = " and ".join(repr(inner.prefix) for inner in found)
        raise InputError(
            f"weights {path}: what is below {prefixes} fits; save the one that is meant alone and give that"
        )
    return found[0] if found else None


def _checkpoint(contents: Contents, path: str | Path, format: str) -> Checkpoint:
    """Make a checkpoint of contents, in the format that is named or recognised."""
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
