"""CUB-200-2011, the Caltech-UCSD birds (Wah et al., 2011): 5,994 training and 5,794 test images of 200 species.

Four text files describe the images by number: ``images.txt`` (path), ``image_class_labels.txt`` (class, from 1),
``train_test_split.txt`` (1: to train on) and ``classes.txt`` (class to name, which is also the name of its folder).
"""

from autolora.data.layout import Split, Tree
from autolora.data.official import Contents, Package
from autolora.data.sets.lists import Entry, check_folder, same_keys, table, tree_of
from autolora.errors import InputError

CUB = Package(
    "CUB_200_2011.tgz",
    "CUB_200_2011",
    ("images.txt", "image_class_labels.txt", "train_test_split.txt"),
    "https://data.caltech.edu/records/65de6-vp158/files/",
    "1.1 GiB",
    "97eceeb196236b17998738112f37df78",
)
IMAGES, LABELS, SPLIT, CLASSES = "images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"
SPLITS: dict[str, Split] = {"1": "train", "0": "test"}


def cub(contents: Contents) -> Tree:
    """Return the official split; classes in the order of ``classes.txt``, named by their folders.

    Raises:
        InputError: a file or an image is missing, two of them disagree, or an image is listed twice.
    """
    images, labels, split, classes = (table(contents, file) for file in (IMAGES, LABELS, SPLIT, CLASSES))
    same_keys(contents.where, {IMAGES: images, LABELS: labels, SPLIT: split})
    if len(set(classes.values())) < len(classes):
        raise InputError(f"{contents.where}: {CLASSES} gives two classes one name; download it again")
    entries = []
    for number, path in images.items():
        name, part = classes.get(labels[number]), SPLITS.get(split[number])
        if name is None:
            raise InputError(
                f"{contents.where}: {LABELS} gives image {number} the class {labels[number]:.20}, which is not one of "
                f"the {len(classes)} in {CLASSES}; download it again"
            )
        if part is None:
            raise InputError(
                f"{contents.where}: {SPLIT} gives image {number} {split[number]!r:.20}, not 0 or 1; download it again"
            )
        entry = Entry(path, name, part, f"image {number}")
        check_folder(contents.where, entry)
        entries.append(entry)
    return tree_of(contents, "images/", entries, list(classes.values()))
