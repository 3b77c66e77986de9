"""Which images a run's epoch was selected on: validation images, unless the data were laid out otherwise and say so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

LABEL = "VALIDATION-IMAGES-ARE-TEST-IMAGES"  # in the name of such data, and so among the notes of every run on them


def selected_on(notes: Iterable[Any], stated: str = "val") -> str:
    """Return ``"test"`` if the notes of a run say that its validation images are its test images, else what is stated.

    Args:
        notes: What was noted when the data were read.
        stated: What ``result.json`` says; runs of before it was looked at always say ``val``.
    """
    return "test" if any(LABEL in str(note) for note in notes) else stated
