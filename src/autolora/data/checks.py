"""What a data set must have before anything is learnt from it; run twice: as given, and after skipping bad images."""

from autolora.data.layout import Classes, Split, Tree
from autolora.errors import InputError


def check(tree: Tree) -> None:
    """Raise what cannot work.

    Raises:
        InputError: fewer than two classes, a class without images or with too few to be split, or class names that
            differ between the splits.
    """
    if len(tree.train) < 2:
        names = ", ".join(map(repr, tree.train))
        raise InputError(
            f"{tree.where} has one class only ({names}), and a classifier needs two; "
            "give a folder with a folder of images per class"
        )
    for split, classes in tree.splits.items():
        check_names(tree, split, classes)
        if split != "test" or not tree.test_lacks_classes:
            check_empty(tree, split, classes)
    check_enough(tree)


def check_names(tree: Tree, split: Split, classes: Classes) -> None:
    """Refuse a split whose classes are not those of train."""
    missing = [name for name in tree.train if name not in classes]
    extra = [name for name in classes if name not in tree.train]
    if missing or extra:
        parts = [f"{split} lacks {listed(missing)}"] * bool(missing) + [f"train lacks {listed(extra)}"] * bool(extra)
        raise InputError(
            f"the classes of train and {split} differ in {tree.where}: {' and '.join(parts)}; "
            "name the classes alike in every split"
        )


def check_empty(tree: Tree, split: Split, classes: Classes) -> None:
    """Refuse a class of ``split`` without an image."""
    empty = [name for name, files in classes.items() if not files]
    if empty:
        where = f"the {split} split of {tree.where}" if tree.test is not None else tree.where
        raise InputError(f"{where} has no image of class {listed(empty)}; add images or leave the class out")


def check_enough(tree: Tree) -> None:
    """Refuse a class with fewer images than there are splits to be made of train."""
    carved = ["validation"] * (tree.val is None) + ["test"] * (tree.test is None)
    needed = max(2, 1 + len(carved))
    for name, files in tree.train.items():
        if len(files) < needed:
            raise InputError(
                f"class {name!r} of {tree.where} has {counted(len(files))} to train on, and at least {needed} are "
                f"needed ({' and '.join(['training', *carved])}); add images or leave the class out"
            )


def counted(count: int) -> str:
    """``one image``, ``2 images``."""
    return "one image" if count == 1 else f"{count} images"


def listed(names: list[str], shown: int = 5) -> str:
    """Return the first names in quotes, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(repr, names[:shown])) + more
