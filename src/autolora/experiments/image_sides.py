"""How the images that a model takes were made: to how many pixels their shorter side was brought."""

from __future__ import annotations

from pathlib import Path

from autolora.data import NAMED_SETS
from autolora.data.pixels import PHOTO_SIZE, pixels_for
from autolora.errors import InputError
from autolora.models.bundle import bundle_record

SHORTER_SIDE = "shorter_side"  # key of a bundle's record


def shorter_side(folder: Path, size: int) -> int:
    """Return to how many pixels the shorter side of an image was brought before its central square was cut out.

    Some named sets have a rule of their own, so a run records it with its model.

    Args:
        folder: Of the model, in timm's format.
        size: Side of the square, in pixels.

    Raises:
        InputError: If what is recorded cannot be.
    """
    record = bundle_record(folder)
    recorded = record.get(SHORTER_SIDE)
    if recorded is None:  # of a run before it was recorded
        known = NAMED_SETS.get(str(record.get("data")))
        return pixels_for([], size, photo_size=PHOTO_SIZE if known is None else known.photo_size).shorter
    if type(recorded) is not int or not size <= recorded <= 2 * size:
        raise InputError(
            f"{folder / 'config.json'}: {SHORTER_SIDE}={recorded!r:.60} is no shorter side of images of {size} pixels; "
            "fetch or export the model again"
        )
    return recorded
