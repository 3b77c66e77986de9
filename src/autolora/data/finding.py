"""From what the user calls DATA to a tree of images: a named set, a table, a folder or an archive."""

from dataclasses import dataclass
from pathlib import Path

from autolora.data.archives import list_archive
from autolora.data.folders import list_folder
from autolora.data.huggingface import PREFIX as HUB
from autolora.data.huggingface import hub_tree
from autolora.data.imageset import Augmentation
from autolora.data.layout import Tree, arrange
from autolora.data.named import NAMED_SETS
from autolora.data.official import data_root
from autolora.data.pixels import PHOTO_SIZE
from autolora.data.sets.torchvision_sets import PREFIX as TORCHVISION
from autolora.data.sets.torchvision_sets import TORCHVISION_SETS, torchvision_tree
from autolora.data.tables import SUFFIX, table_tree
from autolora.data.webdataset import PREFIX as SHARDS
from autolora.data.webdataset import shards_tree
from autolora.errors import InputError


@dataclass(frozen=True)
class Found:
    """The images that DATA names, and how a training image may be altered.

    Args:
        tree: The images.
        augmentation: That is right for them.
        photo_size: Images of this size and larger take the photo pipeline.
        shift: How far a random crop shifts a small image, in pixels; None for S/8.
    """

    tree: Tree
    augmentation: Augmentation = "crop-flip"
    photo_size: int = PHOTO_SIZE
    shift: int | None = None


def find(data: str | Path, root: str | Path | None = None) -> Found:
    """Return the images that ``data`` names.

    A string that is the name of a named set is that set, whatever lies in the current folder; a Path is always a path.

    Args:
        data: What the user gave.
        root: Where named sets lie; see `data_root`.

    Raises:
        InputError: there is no such thing, or it cannot be read.
    """
    if isinstance(data, str):
        found = find_named(data, data_root(root))
        if found is not None:
            return found
    path = Path(data).expanduser()
    if not path.exists():
        raise InputError(
            f"{data} does not exist; give a folder, an archive or a named set ({', '.join(NAMED_SETS)}, "
            f"{TORCHVISION}NAME, {HUB}ORG/NAME, {SHARDS}PATH), or a table PATHS{SUFFIX}"
        )
    if path.is_file() and path.suffix.lower() == SUFFIX:
        return Found(table_tree(path))
    return Found(arrange(list_folder(path) if path.is_dir() else list_archive(path)))


def find_named(data: str, root: Path) -> Found | None:
    """Return the data set of a name, or with a prefix; None if it is neither."""
    if data in NAMED_SETS:
        known = NAMED_SETS[data]
        return Found(known.load(data, root), known.augmentation, known.photo_size, known.shift)
    prefix, colon, name = data.partition(":")
    if prefix + colon == TORCHVISION:
        return Found(torchvision_tree(name, root), TORCHVISION_SETS[name].augmentation)
    if prefix + colon == HUB:
        return Found(hub_tree(name))
    if prefix + colon == SHARDS:
        return Found(shards_tree(name, root))
    return None
