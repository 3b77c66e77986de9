"""One input that a stranger could give the command line, and the whole files that such inputs are made from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CANARY = "canary"  # in the folder above: code that a file brings would write it
TINY = "--model resnet20_cifar --weights none --image-size 12 --epochs 1 --attack pgd-1 --batch-size 10 --rank 2"
QUICKLY = [*TINY.split(), "--device", "cpu", "--workers", "0", "--out", "out", "--quiet"]
JUDGE = ["--attack", "pgd-1", "--limit", "6", "--device", "cpu", "--out", "out", "--quiet"]


@dataclass(frozen=True)
class Case:
    """One input: files in a folder of its own, and the command that is given them there.

    Args:
        kind: What it is, as in ``hostile_inputs.KINDS``.
        argv: The command line.
        files: Contents by name; ``run/NAME`` replaces a file of the finished run that lies there.
        run: Whether the finished run lies there.
        removed: Names of files that do not lie there after all.
    """

    kind: str
    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    run: bool = False
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Material:
    """Whole files to start from.

    Args:
        photos: Folder of the images that the run was trained on.
        run: Folder of a finished run.
        images: Files of images.
        weights: Files of weights, by what they are.
        canary: Where code that is run would write.
    """

    photos: Path
    run: Path
    images: tuple[bytes, ...]
    weights: Mapping[str, bytes]
    canary: Path


class Call:
    """Pickles as a call, which whoever unpickles it carries out."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)
