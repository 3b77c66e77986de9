"""Find the classes and the splits in the folder names of a data set.

Two layouts are read, each optionally inside one more folder: ``train/ [val/] test/`` of class folders, or class folders
alone. A class folder may hold folders of its own.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

from autolora.data.decoding import IMAGE_SUFFIXES
from autolora.data.sources import File, Listing, printable
from autolora.errors import InputError

Split = Literal["train", "val", "test"]
Classes = Mapping[str, Sequence[File]]  # class name -> its images, both sorted; a class without images is there too

SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
BESIDE = "sets?|data|datasets?|images?|imgs?|seg"  # words that collections put before or after the name of a split
ALMOST_SPLIT = re.compile(f"(?:{BESIDE})*({'|'.join(sorted(SPLIT_NAMES, reverse=True))})(?:{BESIDE})*")
UNLABELLED = re.compile(f"(?:{BESIDE})*(?:pred|prediction|unlabell?ed)(?:{BESIDE})*")


@dataclass(frozen=True)
class Tree:
    """The images of a data set by split and class, as the user laid them out; ``val`` and ``test`` may be missing.

    An image may stand in train twice, where a published protocol has it so; then ``test_lacks_classes`` may be true as
    well: the test split of such a protocol has no image of some classes.
    """

    where: str
    train: Classes
    val: Classes | None = None
    test: Classes | None = None
    notes: tuple[str, ...] = ()
    test_lacks_classes: bool = False

    @property
    def splits(self) -> dict[Split, Classes]:
        """The splits that are there."""
        named: dict[Split, Classes | None] = {"train": self.train, "val": self.val, "test": self.test}
        return {split: classes for split, classes in named.items() if classes is not None}

    def files(self) -> list[File]:
        """All images, each once: by split, then class, then name."""
        listed = (file for classes in self.splits.values() for files in classes.values() for file in files)
        return list({file.source.name: file for file in listed}.values())

    def changed(self, change: Callable[[Classes], Classes], *notes: str) -> "Tree":
        """Each split put through ``change``, and ``notes`` added."""
        new = {split: change(classes) for split, classes in self.splits.items()}
        return replace(self, train=new["train"], val=new.get("val"), test=new.get("test"), notes=self.notes + notes)

    def only(self, names: Sequence[str]) -> "Tree":
        """Only the classes ``names``, in that order; a split that lacks one lacks it still.

        Raises:
            InputError: a name is unknown or stands there twice.
        """
        for name in names:
            if name not in self.train:
                near = get_close_matches(name, self.train, n=1) or sorted(self.train)[:3]
                raise InputError(f"{self.where} has no class {name!r}; did you mean {' or '.join(map(repr, near))}?")
        if len(set(names)) < len(names):
            raise InputError(f"classes={list(names)} names a class twice; name each once")
        return self.changed(lambda classes: {name: classes[name] for name in names if name in classes})

    def without(self, names: Iterable[str], *notes: str) -> "Tree":
        """Without the images whose sources have these ``names``; a class that loses all stays, empty."""
        gone = set(names)
        return self.changed(
            lambda classes: {
                c: [file for file in files if file.source.name not in gone] for c, files in classes.items()
            },
            *notes,
        )


def arrange(listing: Listing) -> Tree:
    """Return the splits and classes in ``listing``.

    Raises:
        InputError: it is empty, holds no images, no class folders, or splits without train/.
    """
    if not listing.files:
        raise InputError(f"{listing.where} is empty; give a folder or an archive with a folder of images per class")
    images, notes = sift(listing)
    folders = {parts for parts in listing.folders if not hidden(parts)}
    images, folders = unwrapped(images, folders)
    tops = split_folders(listing.where, images, folders)
    if tops:
        return split_layout(listing.where, images, folders, tops, notes)
    classes, loose = by_class(images, folders, ())
    if not classes or loose == len(images):
        raise InputError(f"the images of {listing.where} lie in no class folders; sort them into one folder per class")
    return Tree(listing.where, classes, notes=(*notes, *loose_note(loose)))


def sift(listing: Listing) -> tuple[list[File], list[str]]:
    """Return the images among the files, and a note on what was ignored."""
    images, ignored = [], Counter[str]()
    for file in listing.files:
        suffix = os.path.splitext(file.parts[-1])[1].lower()
        if hidden(file.parts):
            ignored["hidden"] += 1
        elif suffix in IMAGE_SUFFIXES:
            images.append(file)
        else:
            ignored[suffix or "no suffix"] += 1
    kinds = ", ".join(f"{kind}: {count}" for kind, count in sorted(ignored.items()))
    if not images:
        raise InputError(
            f"{listing.where} holds no images among its {len(listing.files)} files ({kinds}); "
            f"images are {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return images, [f"ignored {ignored.total()} files that are no images ({kinds})"] if ignored else []


def hidden(parts: tuple[str, ...]) -> bool:
    """Whether a file or a folder above it is hidden, or macOS's shadow of an archive."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def unwrapped(images: list[File], folders: set[tuple[str, ...]]) -> tuple[list[File], set[tuple[str, ...]]]:
    """Without the one folder that everything lies in, if that is neither a split nor itself a class."""
    while len(top := {f.parts[0] for f in images} | {parts[0] for parts in folders}) == 1:
        if next(iter(top)).lower() in SPLIT_NAMES or any(len(file.parts) < 3 for file in images):
            break
        images = [File(file.parts[1:], file.source) for file in images]
        folders = {parts[1:] for parts in folders if len(parts) > 1}
    return images, folders


def split_folders(where: str, images: Sequence[File], folders: set[tuple[str, ...]]) -> dict[Split, str]:
    """Which top folder is which split; empty when the top folders are classes.

    A class may be called "train": a split folder is one that has folders of images in it.
    """
    found: dict[Split, str] = {}
    for top in sorted({file.parts[0] for file in images if len(file.parts) > 2}):
        split = SPLIT_NAMES.get(top.lower())
        if split in found:
            raise InputError(f"{where} has both {found[split]}/ and {top}/; keep one of them as the {split} split")
        if split is not None:
            found[split] = top
    if "train" in found:
        return found
    tops = {file.parts[0] for file in images} | {parts[0] for parts in folders}
    if found and all(top.lower() in SPLIT_NAMES for top in tops):
        raise InputError(f"{where} has {'/ and '.join(found.values())}/ but no train/ with class folders; add train/")
    refuse_almost_splits(where, images)
    return {}


def refuse_almost_splits(where: str, images: Sequence[File]) -> None:
    """Refuse to take splits for classes: a model that tells ``training_set`` from ``test_set`` is of use to nobody.

    Raises:
        InputError: every folder is called almost as a split, or as images without labels, and two splits are named.
    """
    tops = sorted({file.parts[0] for file in images if len(file.parts) > 1})
    names = {top: re.sub(r"[\W\d_]+", "", top).lower() for top in tops}
    meant = {top: SPLIT_NAMES[found[1]] for top, name in names.items() if (found := ALMOST_SPLIT.fullmatch(name))}
    others = [top for top in tops if top not in meant]
    if len(set(meant.values())) < 2 or not all(UNLABELLED.fullmatch(names[top]) for top in others):
        return
    what = f"{where} has {' and '.join(f'{printable(top)}/' for top in tops)}, which look like splits, not like classes"
    deep = {file.parts[0] for file in images if len(file.parts) > 2}
    flat = next((top for top, split in meant.items() if split == "train" and top not in deep), None)
    if flat is not None:
        advice = f"the images of {printable(flat)}/ lie in no class folders; sort them into one folder per class"
        raise InputError(f"{what}, and {advice}, as in train/CLASS/")
    new = " and ".join(f"{split}/" for split in ("train", "val", "test") if split in meant.values())
    raise InputError(f"{what}; rename them to {new}, with the class folders directly in them")


def split_layout(
    where: str, images: Sequence[File], folders: set[tuple[str, ...]], tops: dict[Split, str], notes: list[str]
) -> Tree:
    """Return the tree of a data set that comes with its splits. A val/ without test/ is the held-out test split."""
    splits: dict[Split, Classes] = {}
    for split, top in tops.items():
        splits[split], loose = by_class(images, folders, (top,))
        notes += loose_note(loose, f"{top}/")
    others = {file.parts[0] for file in images} | {parts[0] for parts in folders}
    for other in sorted(others - set(tops.values())):
        notes.append(f"{other} is not used: it is no folder of class folders called train, val or test")
    if "val" in splits and "test" not in splits:
        notes.append(
            f"there is no test/: {tops['val']}/ is the test split, and validation images are taken from train/"
        )
        splits["test"] = splits.pop("val")
    return Tree(where, splits["train"], splits.get("val"), splits.get("test"), tuple(notes))


def tree_from(where: str, splits: Mapping[Split, Classes], notes: Sequence[str] = ()) -> Tree:
    """Return the tree of a data set that names its splits, or has none; a val without test is the held-out test split.

    Raises:
        InputError: there is no train split among several.
    """
    found = dict(splits)
    if "train" not in found:
        raise InputError(f"{where} has the splits {' and '.join(found)}, and none to train on; add one called train")
    if "val" in found and "test" not in found:
        notes = [*notes, "there is no test split: val is the test split, and validation images are taken from train"]
        found["test"] = found.pop("val")
    return Tree(where, found["train"], found.get("val"), found.get("test"), tuple(notes))


def by_class(
    images: Sequence[File], folders: set[tuple[str, ...]], root: tuple[str, ...]
) -> tuple[dict[str, list[File]], int]:
    """Return the images below ``root`` by class folder, empty ones included, and how many lie in none."""
    depth = len(root)
    below = [file for file in images if file.parts[:depth] == root]
    inside = [file for file in below if len(file.parts) > depth + 1]
    names = {file.parts[depth] for file in inside}
    names |= {parts[depth] for parts in folders if len(parts) == depth + 1 and parts[:depth] == root}
    classes: dict[str, list[File]] = {name: [] for name in sorted(names)}
    for file in inside:
        classes[file.parts[depth]].append(file)
    return classes, len(below) - len(inside)


def loose_note(loose: int, where: str = "") -> list[str]:
    """Return a note on images outside any class folder, if there are some."""
    return (
        [f"ignored {loose} images that lie {'in ' + where if where else ''}outside any class folder"] if loose else []
    )
