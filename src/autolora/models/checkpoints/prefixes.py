"""What training scripts put before every name: ``model.`` of a LightningModule, ``net.backbone.``, or any other.

Which prefix is one is told by structure, not by a list: most names have it, and below it every name and shape fits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from autolora.models.checkpoints.contents import Checkpoint, Contents
from autolora.models.checkpoints.names import MEANS, below, shown, without_wrappers

__all__ = ["Inner", "inner_contents"]

DEEPEST = 4  # modules within modules; names of a file can have any number of dots
LEAST = 1 / 4  # of all names: there may be a student, a teacher and their averages
NORMALIZERS = {name for pair in MEANS for name in pair}


class Inner(NamedTuple):
    """Weights below a prefix.

    Args:
        prefix: With its dot.
        checkpoint: Of what is below it.
        left_out: Names that are not below it.
    """

    prefix: str
    checkpoint: Checkpoint
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        """Say what was taken off, and what was left out."""
        taken = f"{shown(self.prefix)!r} is taken off the names of its weights"
        if not self.left_out:
            return taken
        some = ", ".join(shown(name) for name in self.left_out[:3])
        more = ", ..." if len(self.left_out) > 3 else ""
        return f"{taken}; {len(self.left_out)} tensors beside them are left out ({some}{more})"


def inner_contents(contents: Contents) -> Iterator[tuple[str, Contents, tuple[str, ...]]]:
    """Yield the contents below every prefix that many names have, and the names that lie beside it.

    A prefix beside which a normaliser lies is none of them: without it, images would be normalised by other values.
    """
    counted = Counter(prefix for name in contents.state for prefix in _prefixes(name))
    for prefix, count in counted.items():
        left_out = tuple(name for name in contents.state if not name.startswith(prefix))
        if count >= LEAST * len(contents.state) and not any(name.split(".")[-1] in NORMALIZERS for name in left_out):
            state = without_wrappers(below(contents.state, prefix))
            yield prefix, replace(contents, state=state), left_out


def _prefixes(name: str) -> list[str]:
    parts = name.split(".", DEEPEST)[:-1]
    return ["".join(f"{part}." for part in parts[:depth]) for depth in range(1, len(parts) + 1)]
