"""The Describable Textures Dataset (Cimpoi et al., 2014), release 1.0.1, first of its ten splits.

It has 47 classes of 120 images; each split gives every class 40 to train, 40 to validate and 40 to test on. Papers on
fine-tuning train on train and val together: 3,760 images, and 1,880 to test on. AutoLoRa's table says 57 classes and
2,760 training images. 57 is the width of the head in the code that it builds on, with ten outputs that no image has;
2,760 is a slip of one digit.
"""

from autolora.data.layout import Split, Tree
from autolora.data.official import Contents, Package
from autolora.data.sets.lists import Entry, tree_of
from autolora.errors import InputError

DTD = Package(
    "dtd-r1.0.1.tar.gz",
    "dtd",
    ("labels/train1.txt", "labels/val1.txt", "labels/test1.txt"),
    "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/",
    "596 MiB",
    "fff73e5086ae6bdbea199a49dfb8a4c1",
)
LISTS: tuple[tuple[str, Split], ...] = (("train1.txt", "train"), ("val1.txt", "train"), ("test1.txt", "test"))


def dtd(contents: Contents) -> Tree:
    """Return split 1: train1 and val1 to train on, test1 to test on.

    Raises:
        InputError: a list or an image is missing, or an image is listed twice.
    """
    entries = [entry for file, split in LISTS for entry in read(contents, f"labels/{file}", split)]
    names = sorted({entry.name for entry in entries})
    note = "split 1 of the ten official ones; its train and val are the training images, as in the papers"
    return tree_of(contents, "images/", entries, names, note)


def read(contents: Contents, file: str, split: Split) -> list[Entry]:
    """Return the lines ``CLASS/IMAGE`` of a list."""
    entries = []
    for number, line in enumerate(contents.lines(file), 1):
        path = line.strip()
        name, slash, image = path.partition("/")
        if not (name and slash and image):
            raise InputError(f"{contents.where}: {file}, line {number}, is no CLASS/IMAGE: {line!r:.60}")
        entries.append(Entry(path, name, split, f"{file}, line {number}"))
    return entries
