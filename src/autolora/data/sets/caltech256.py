"""Caltech-256 (Griffin, Holub and Perona, 2007): 30,607 images of 256 objects and clutter, and no official split.

Two splits of it are in use. `sixty_per_class` is the sound one, of the papers on transfer: the first 60 images of each
class to train on, 15,420, and the other 15,187 to test on. `released` is what the released code of AutoLoRa does. It
means to train on the first 150 images of each class, but 233 of the 257 classes have fewer, and there it runs on into
the next class. So 11,492 of its 38,550 training images are there twice, and the 3,549 test images are of the 24 classes
that have more than 150. (The paper's 42,099 images are the sum of the two, and its split is not random.)
"""

import re

from autolora.data.layout import Tree
from autolora.data.official import Contents, Package
from autolora.data.sources import File
from autolora.errors import InputError

CALTECH256 = Package(
    "256_ObjectCategories.tar",
    "256_ObjectCategories",
    (),
    "https://data.caltech.edu/records/nyy15-4j048/files/",
    "1.1 GiB",
    "67b4f42ca05d46448c6bb8ecd2220f6d",
)
CLASS = re.compile(r"(\d{3})\.[^/]+")
IMAGE = re.compile(r"(\d{3})_(\d{4})\.jpg")
SOUND, RELEASED = 60, 150


def sixty_per_class(contents: Contents) -> Tree:
    """Return the first 60 images of each class to train on, and all others to test on.

    Raises:
        InputError: images are missing or lie in the wrong folder, or a class has no more than 60.
    """
    classes = images_by_class(contents)
    for name, images in classes.items():
        if len(images) <= SOUND:
            raise InputError(
                f"{contents.where}: class {name} has {len(images)} images, and the split takes {SOUND} to train on; "
                "it is incomplete, so unpack or download it again"
            )
    train = {name: [file(contents, "train", path) for path in images[:SOUND]] for name, images in classes.items()}
    test = {name: [file(contents, "test", path) for path in images[SOUND:]] for name, images in classes.items()}
    note = f"there is no official split: the first {SOUND} images of each class are the training images"
    return Tree(contents.where, train, test=test, notes=(note,))


def released(contents: Contents) -> Tree:
    """Return the split of the released code, with its duplicates and the few classes of its test images.

    Raises:
        InputError: images are missing or lie in the wrong folder.
    """
    classes = images_by_class(contents)
    listed = [(name, path) for name, images in classes.items() for path in images]
    train: dict[str, list[File]] = {name: [] for name in classes}
    test: dict[str, list[File]] = {name: [] for name in classes}
    trained, start = set[str](), 0
    for images in classes.values():
        for name, path in listed[start : start + RELEASED]:  # beyond the class where it is smaller
            train[name].append(file(contents, "train", path))
            trained.add(path)
        start += len(images)
    for name, path in listed:
        if path not in trained:
            test[name].append(file(contents, "test", path))
    count = sum(map(len, train.values()))
    tested = sum(1 for files in test.values() if files)
    note = (
        f"this is the split of the released code: {count - len(trained)} of the {count} training images are "
        f"duplicates, and the test images are of {tested} of the {len(classes)} classes; caltech256 is the sound one"
    )
    return Tree(contents.where, train, test=test, notes=(note,), test_lacks_classes=True)


def images_by_class(contents: Contents) -> dict[str, list[str]]:
    """Return the paths ``NNN.class/NNN_MMMM.jpg`` by class, in order; what else lies there is not part of the set.

    Raises:
        InputError: a class or an image is missing in the numbers, or an image lies in the folder of another class.
    """
    classes: dict[str, list[str]] = {}
    for path in sorted(contents.files):
        folder, _, name = path.partition("/")
        image = IMAGE.fullmatch(name)
        if not CLASS.fullmatch(folder) or image is None:
            continue
        if image[1] != folder[:3]:
            raise InputError(
                f"{contents.where}: {path} has the number of class {image[1]}, and lies in class {folder[:3]}; "
                "unpack or download it again"
            )
        classes.setdefault(folder, []).append(path)
    check_complete(contents, classes)
    return classes


def check_complete(contents: Contents, classes: dict[str, list[str]]) -> None:
    """Refuse numbers with a gap; what is missing at their end cannot be told from them."""
    if not classes:
        raise InputError(f"{contents.where} holds no images NNN.class/NNN_MMMM.jpg; download it again")
    for number, folder in enumerate(classes, 1):
        if folder[:3] != f"{number:03d}":
            raise InputError(f"{contents.where} lacks class {number:03d}, or has it twice; unpack or download it again")
    for folder, paths in classes.items():
        for number, path in enumerate(paths, 1):
            if path != f"{folder}/{folder[:3]}_{number:04d}.jpg":
                raise InputError(
                    f"{contents.where} lacks {folder}/{folder[:3]}_{number:04d}.jpg; it is incomplete, so unpack or "
                    "download it again"
                )


def file(contents: Contents, split: str, path: str) -> File:
    """Return one image."""
    return contents.file(path, split, *path.split("/"))
