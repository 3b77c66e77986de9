"""Folders, archives and named sets of images -> training, validation and test sets with pixels in [0, 1]."""

from autolora.data.downloads import download
from autolora.data.feeding import WaitingTime, loader
from autolora.data.imageset import Augmentation, ImageSet
from autolora.data.named import NAMED_SETS, known_sets
from autolora.data.pixels import unit_range
from autolora.data.sources import UnreadableImage
from autolora.data.splits import Splits, load_part, load_splits

__all__ = [
    "NAMED_SETS",
    "Augmentation",
    "ImageSet",
    "Splits",
    "UnreadableImage",
    "WaitingTime",
    "download",
    "known_sets",
    "load_part",
    "load_splits",
    "loader",
    "unit_range",
]
