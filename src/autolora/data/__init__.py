"""Folders, archives and named sets of images -> training, validation and test sets with pixels in [0, 1]."""

from autolora.data.imageset import Augmentation, ImageSet, loader
from autolora.data.named import NAMED_SETS
from autolora.data.sources import UnreadableImage
from autolora.data.splits import Splits, load_splits

__all__ = ["NAMED_SETS", "Augmentation", "ImageSet", "Splits", "UnreadableImage", "load_splits", "loader"]
