"""Paths as users write them."""

from __future__ import annotations

from os import PathLike
from pathlib import Path


def expanded(path: str | PathLike[str]) -> Path:
    """Return a path with the home folder for ``~``, which a shell leaves as it is after ``--out=`` and in a file."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~NAME of nobody: a name like any other
        return Path(path)
