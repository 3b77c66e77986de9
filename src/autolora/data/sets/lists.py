"""Images that lie in class folders, with lists beside them that say what each one is for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autolora.data.layout import Split, Tree, tree_from
from autolora.data.official import Contents
from autolora.data.sources import File
from autolora.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One image as a list has it.

    Args:
        path: Of the image, below the folder of images.
        name: Of its class.
        split: It belongs to.
        said: Where that is said, such as ``train1.txt, line 3``.
    """

    path: str
    name: str
    split: Split
    said: str


def tree_of(contents: Contents, folder: str, entries: Sequence[Entry], names: Sequence[str], *notes: str) -> Tree:
    """Return the images that are listed, in the order of the list.

    Args:
        contents: Where the images are.
        folder: In it, with a slash at its end; empty for the top.
        entries: The list.
        names: Classes, in the order of their labels.
        notes: What the user should know about the split.

    Raises:
        InputError: an image is listed twice, or is not there.
    """
    check_once(contents.where, entries)
    check_there(contents, folder, entries)
    splits: dict[Split, dict[str, list[File]]] = {}
    for entry in entries:
        classes = splits.setdefault(entry.split, {name: [] for name in names})
        file = contents.file(folder + entry.path, entry.split, entry.name, entry.path.rsplit("/", 1)[-1])
        classes[entry.name].append(file)
    return tree_from(contents.where, splits, notes)


def check_once(where: str, entries: Iterable[Entry]) -> None:
    """Refuse an image that is listed twice, above all once to train on and once to test on."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        first = seen.setdefault(entry.path, entry)
        if first is not entry:
            both = f", once for {first.split} and once for {entry.split}" if first.split != entry.split else ""
            raise InputError(
                f"{where}: {entry.path} is listed twice ({first.said}; {entry.said}){both}; "
                "these are not the official lists, so download them again"
            )


def check_there(contents: Contents, folder: str, entries: Sequence[Entry]) -> None:
    """Refuse lists with an image that is not there."""
    lost = [entry for entry in entries if folder + entry.path not in contents.files]
    if lost:
        raise InputError(
            f"{contents.where} lacks {len(lost)} of {len(entries)} listed images, the first {folder}{lost[0].path} "
            f"({lost[0].said}); it is incomplete, so unpack or download it again"
        )


def check_folder(where: str, entry: Entry) -> None:
    """Refuse a label that is not that of the folder in which the image lies."""
    folder = entry.path.split("/", 1)[0]
    if folder != entry.name:
        raise InputError(
            f"{where}: {entry.path} has the label of {entry.name} ({entry.said}), and lies in {folder}; "
            "labels and images do not belong together, so download both again"
        )


def table(contents: Contents, file: str) -> dict[str, str]:
    """Return the lines ``KEY VALUE`` of a text file.

    Raises:
        InputError: a line is something else, or a key comes twice.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(contents.lines(file), 1):
        key, _, value = line.strip().partition(" ")
        if not value or key in found:
            what = f"repeats {key}" if value else f"is no pair of a number and a value: {line!r:.60}"
            raise InputError(f"{contents.where}: {file}, line {number}, {what}; download it again")
        found[key] = value.strip()
    return found


def same_keys(where: str, tables: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse tables that do not speak of the same images."""
    (first, keys), *others = tables.items()
    for other, found in others:
        lacking = next((key for key in keys if key not in found), None)
        if lacking is not None:
            raise InputError(f"{where}: {other} has no line for image {lacking} of {first}; download it again")
        more = next((key for key in found if key not in keys), None)
        if more is not None:
            raise InputError(
                f"{where}: {other} has a line for image {more}, which is not in {first}; download it again"
            )
