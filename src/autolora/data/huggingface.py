"""Data sets of the Hugging Face Hub, as ``hf:ORG/NAME``, through the package ``datasets`` (extra ``hf``).

A data set may need more than its name: ``hf:ORG/NAME,label=fine_label,config=small,revision=v1.0``. Images stay
encoded, and in the memory-mapped files of ``datasets``, until they are decoded here as all others are. No code of the
data set runs: ``datasets`` has known no loading scripts since version 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autolora.data.layout import SPLIT_NAMES, Split, Tree, tree_from
from autolora.data.sources import File
from autolora.errors import InputError

PREFIX = "hf:"
OPTIONS = ("image", "label", "config", "revision")
LABEL = "label"  # by far the most usual name of the column


@dataclass(frozen=True, slots=True, eq=False)
class HubSource:
    """One row of a column of images."""

    name: str
    rows: Any
    column: str
    index: int

    def read(self) -> bytes:
        """Return the encoded bytes, or those of the file that the row names."""
        cell = self.rows[self.index][self.column]
        if cell is None:
            raise ValueError("the row has no image")
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        with open(cell["path"], "rb") as stream:
            return stream.read()


def hub_tree(data: str) -> Tree:
    """Return the images of ``ORG/NAME[,OPTION=VALUE...]``.

    Raises:
        InputError: ``datasets`` is not installed, there is no such data set, or it has no images with labels.
    """
    repository, options = parsed(data)
    loaded = load(repository, options)
    splits: dict[Split, dict[str, list[File]]] = {}
    notes = []
    for given, rows in loaded.items():
        split = SPLIT_NAMES.get(given.lower())
        if split is None or split in splits:
            notes.append(f"the split {given} is not used: it is not called train, val or test")
            continue
        splits[split] = by_class(repository, split, rows, options)
    if not splits:
        raise InputError(f"{PREFIX}{repository} has only the splits {', '.join(loaded)}; one must be called train")
    return tree_from(f"{PREFIX}{repository}", splits, notes)


def parsed(data: str) -> tuple[str, dict[str, str]]:
    """Return the repository and the options of ``ORG/NAME[,OPTION=VALUE...]``."""
    repository, *rest = data.split(",")
    options = {}
    for item in rest:
        key, equals, value = item.partition("=")
        if key not in OPTIONS or not equals or not value:
            raise InputError(
                f"{PREFIX}{data}: {item!r} is no option; after the name come "
                f"{', '.join(f'{name}=...' for name in OPTIONS)}, with commas between"
            )
        options[key] = value
    return repository, options


def load(repository: str, options: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the rows of each split."""
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{PREFIX}{repository} needs the package datasets; install it: pip install '.[hf]' in a clone, or uv sync "
            "--extra hf"
        ) from error
    try:
        return datasets.load_dataset(repository, options.get("config"), revision=options.get("revision"))
    except Exception as error:  # no network, no such repository, no such configuration, files of an unknown kind
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{PREFIX}{repository} could not be loaded ({reason:.300}); check its name on huggingface.co/datasets and "
            "the connection, and give a configuration with ,config=NAME if it asks for one"
        ) from error


def by_class(repository: str, split: Split, rows: Any, options: Mapping[str, str]) -> dict[str, list[File]]:
    """Return the images of one split by class."""
    import datasets

    where = f"{PREFIX}{repository}"
    image = column(where, rows, datasets.Image, options.get("image"), "image")
    label = column(where, rows, datasets.ClassLabel, options.get("label"), LABEL)
    feature = rows.features[label]
    encoded = rows.cast_column(image, datasets.Image(decode=False))
    values = rows[label][:]
    names = list(feature.names) if isinstance(feature, datasets.ClassLabel) else sorted(map(str, set(values)))
    files: dict[str, list[File]] = {name: [] for name in names}
    for index, value in enumerate(values):
        name = named(where, split, index, feature, value)
        parts = (split, name, f"{index:08d}")
        files[name].append(File(parts, HubSource(f"{where}:{'/'.join(parts)}", encoded, image, index)))
    return files


def named(where: str, split: str, index: int, feature: Any, value: Any) -> str:
    """Return the class name of a row.

    Raises:
        InputError: the row has no label; the Hub marks hidden test labels with -1.
    """
    names = getattr(feature, "names", None)
    if value is None or (names is not None and not 0 <= value < len(names)):
        raise InputError(
            f"{where}: row {index} of {split} has the label {value}, which is none; a split without labels is of no use"
        )
    return str(names[value]) if names is not None else str(value)


def column(where: str, rows: Any, kind: type, given: str | None, usual: str) -> str:
    """Return the column of images or labels: as given, or the one of its kind, or the usual one.

    Raises:
        InputError: there is no such column, or more than one that it could be.
    """
    names = list(rows.features)
    if given is not None:
        if given in names:
            return given
        raise InputError(f"{where} has no column {given!r}; its columns are {', '.join(names)}")
    found = [name for name in names if isinstance(rows.features[name], kind)]
    if len(found) == 1:
        return found[0]
    if usual in (found or names):
        return usual
    raise InputError(
        f"{where} has {len(found) or 'no'} columns that may be the {usual} ({', '.join(found or names)}); "
        f"say which, as in {where},{usual}={(found or names)[0]}"
    )
