"""Which folder a run may be written to, which run may be continued there, and how far that one has come."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from shlex import quote

from autolora.data.named import NAMED_SETS
from autolora.errors import InputError
from autolora.experiments.config import MANNER, RunConfig, read_yaml
from autolora.experiments.result import CONFIG, RESULT, SPLIT
from autolora.experiments.run_lock import LOCK
from autolora.threat import parse_radius

CHECKPOINTS = "checkpoints"
# options that may be paths, which can be written in many ways
PLACES = ("data", "model", "weights", "adapter", "plugin")


def check_folder(config: RunConfig, resume: bool) -> None:
    """Refuse a folder that holds something else, before anything slow begins.

    Raises:
        InputError: If it is no folder, lies among the images, or holds no run, a finished one, or one that is not to
            be continued so.
    """
    folder = config.folder
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out={folder} is a file; name a folder that is new or empty")
    if not folder.exists() or not any(path.name != LOCK for path in folder.iterdir()):
        _check_outside(folder, config.data)
        return
    if not (folder / CONFIG).is_file():
        raise InputError(f"out={folder} is not empty and holds no run; name a folder that is new or empty with --out")
    if (folder / RESULT).is_file():
        raise InputError(f"out={folder} holds a finished run; name another folder with --out")
    if not resume:
        raise InputError(
            f"out={folder} holds a run that stopped; continue it with --resume, or name another with --out"
        )
    _check_same(config, read_yaml(folder / CONFIG))


def stored_config(folder: Path) -> RunConfig | None:
    """Return the configuration of a run that began in a folder, None where none did.

    Raises:
        InputError: If it cannot be read.
    """
    return read_yaml(folder / CONFIG) if (folder / CONFIG).is_file() else None


def as_begun(config: RunConfig, stored: RunConfig) -> RunConfig:
    """Return the configuration of a run that goes on: what is left open now is what it was, or was found to be, then.

    Args:
        config: What the user gave this time.
        stored: What the run began with.
    """
    left_open = [item.name for item in fields(RunConfig) if item.name != "out" and _is_open(config, item.name)]
    return replace(config, **{name: getattr(stored, name) for name in left_open})


def _is_open(config: RunConfig, name: str) -> bool:
    return getattr(config, name) is None or (name == "batch_size" and config.batch_size == "auto")


def withdraw(folder: Path) -> None:
    """Take back what was written of a run that could not begin; its lock removes the empty folder."""
    if not (folder / CHECKPOINTS).exists():
        for name in (CONFIG, SPLIT):
            (folder / name).unlink(missing_ok=True)


def how_far(folder: Path) -> str | None:
    """Say where the last checkpoint of a run was taken, as in ``after 3 epochs``; None without a checkpoint."""
    for name in ("last", "previous"):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            manifest = json.loads((folder / CHECKPOINTS / name / "manifest.json").read_text(encoding="utf-8"))
            epoch, batches = int(manifest["epoch"]), int(manifest["batches"])
            if batches:
                return f"after batch {batches} of epoch {epoch + 1}"
            return "after the last finished epoch"
    return None


def resume_command(folder: Path, command: str = "fit") -> str:
    """Return what to type to continue a run: as many processes as were launched for it."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    launcher = f"torchrun --nproc-per-node {processes} -m " if processes > 1 else ""
    return f"{launcher}autolora {command} --config {quote(str(folder / CONFIG))} --resume"


def path_of(data: str) -> Path | None:
    """Return the path that DATA stands for; None for the name of a set, such as ``digits`` or ``hf:ORG/NAME``."""
    return None if data in NAMED_SETS or ":" in data else Path(data).expanduser()


def _check_outside(folder: Path, data: str) -> None:
    """Refuse to begin a run among its images, where it is taken for a class of them afterwards."""
    images = path_of(data)
    if images is not None and images.is_dir() and folder.resolve().is_relative_to(images.resolve()):
        raise InputError(
            f"out={folder} lies in data={data}, where it would be taken for a class of images; choose a folder outside "
            "with --out"
        )


def _check_same(config: RunConfig, stored: RunConfig) -> None:
    """Refuse to continue a run as another one; an option that is left open now is as it was then (as_begun)."""
    for item in fields(RunConfig):
        asked, was = getattr(config, item.name), getattr(stored, item.name)
        if item.name in MANNER or asked == was or _is_open(config, item.name):
            continue
        if item.name in PLACES and _same_place(asked, was):
            continue
        if item.name == "eps" and parse_radius(asked) == parse_radius(was):
            continue
        raise InputError(
            f"--resume: the run in {config.folder} was started with {item.name}={was}, not {asked}; "
            f"continue it with --config {config.folder / CONFIG} --resume, or start a new run with another --out"
        )


def _same_place(asked: str, was: str | None) -> bool:
    """Say whether two paths lead to one file or folder that is there."""
    return was is not None and os.path.exists(asked) and os.path.realpath(asked) == os.path.realpath(was)
