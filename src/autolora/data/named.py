"""Data sets that have a name instead of a place, and what there is to know about them.

A new one is a reader in `autolora.data.sets` and an entry in `NAMED_SETS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autolora.data.imageset import Augmentation
from autolora.data.layout import Tree
from autolora.data.official import Package, absent, locate
from autolora.data.pixels import PHOTO_SIZE
from autolora.data.sets import caltech256, cifar, cub, digits, dogs, dtd, stl10
from autolora.data.sets.torchvision_sets import PREFIX, TORCHVISION_SETS


@dataclass(frozen=True)
class NamedSet:
    """A data set known by name: where its images come from and how far they may be altered.

    Args:
        summary: In a few words.
        read: Makes the tree of what is in ``packages``, in their order.
        classes: How many.
        train: How many training images there are officially, validation images included.
        test: How many test images; 0 if it comes without a split.
        packages: Archives that it is published as; empty if it is embedded.
        terms: Of its use, as far as its authors state them.
        augmentation: That is right for it.
        photo_size: Images of this size and larger take the photo pipeline.
        shift: How far a random crop shifts a small image, in pixels; None for S/8.
        home: Folder below the data root in which its packages may lie, if that is not its name.
    """

    summary: str
    read: Callable[..., Tree]
    classes: int
    train: int
    test: int
    packages: tuple[Package, ...] = ()
    terms: str = ""
    augmentation: Augmentation = "crop-flip"
    photo_size: int = PHOTO_SIZE
    shift: int | None = None
    home: str = ""

    @property
    def fetchable(self) -> bool:
        """Whether its archives can be downloaded and checked."""
        return bool(self.packages) and all(package.md5 for package in self.packages)

    def load(self, name: str, root: Path) -> Tree:
        """Return its images from the archives, or their unpacked copies, below ``root``.

        Raises:
            InputError: they are not there, are damaged, or not what the authors published.
        """
        contents = [locate(package, root, self.home or name) for package in self.packages]
        missing = [package for package, found in zip(self.packages, contents, strict=True) if found is None]
        if missing:
            raise absent(name, missing, root, self.terms, self.fetchable)
        return self.with_count(name, self.read(*contents))

    def with_count(self, name: str, tree: Tree) -> Tree:
        """Return the tree with a note if it has not as many images as its authors say."""
        found = [sum(map(len, classes.values())) for classes in tree.splits.values()]
        if sum(found) == self.train + self.test:
            return tree
        official = " + ".join(f"{count:,}" for count in (self.train, self.test) if count)
        counted = " + ".join(f"{count:,}" for count in found)
        return tree.changed(lambda classes: classes, f"{name} has {counted} images here, and officially {official}")


RESEARCH = "research use is customary; its authors state no licence"

NAMED_SETS: dict[str, NamedSet] = {
    "digits": NamedSet(
        "handwritten digits of 8 x 8 pixels, embedded",
        digits.digits,
        10,
        1797,
        0,
        terms="comes with scikit-learn (BSD-3-Clause)",
        augmentation="crop",  # a mirrored digit is no digit
    ),
    "cifar10": NamedSet("photos of 32 x 32 pixels", cifar.cifar10, 10, 50_000, 10_000, (cifar.CIFAR10,), RESEARCH),
    "cifar100": NamedSet(
        "photos of 32 x 32 pixels, fine labels", cifar.cifar100, 100, 50_000, 10_000, (cifar.CIFAR100,), RESEARCH
    ),
    "stl10": NamedSet(
        "photos of 96 x 96 pixels from ImageNet, labelled ones only",
        stl10.stl10,
        10,
        5000,
        8000,
        (stl10.STL10,),
        f"{RESEARCH}; the terms of ImageNet hold (non-commercial research)",
        photo_size=stl10.SIDE + 1,  # its own size counts as small, as in the papers
        shift=4,
    ),
    "dtd": NamedSet(
        "describable textures, split 1, train and val to train on",
        dtd.dtd,
        47,
        3760,
        1880,
        (dtd.DTD,),
        "for research, say its authors",
    ),
    "dogs": NamedSet(
        "Stanford Dogs, whole photos",
        dogs.dogs,
        120,
        12_000,
        8580,
        (dogs.IMAGES, dogs.LISTS),
        "photos from ImageNet, whose terms hold (non-commercial research)",
    ),
    "cub": NamedSet(
        "CUB-200-2011, birds, whole photos",
        cub.cub,
        200,
        5994,
        5794,
        (cub.CUB,),
        "photos from Flickr belong to their authors; non-commercial research is customary",
    ),
    "caltech256": NamedSet(
        "objects and clutter, 60 images of each class to train on",
        caltech256.sixty_per_class,
        257,
        15_420,
        15_187,
        (caltech256.CALTECH256,),
        "see its page at data.caltech.edu; photos belong to their authors",
    ),
    "caltech256-released": NamedSet(
        "the split of AutoLoRa's released code: duplicates, test images of 24 classes",
        caltech256.released,
        257,
        38_550,
        3549,
        (caltech256.CALTECH256,),
        "see its page at data.caltech.edu; photos belong to their authors",
        home="caltech256",
    ),
}


def known_sets() -> list[dict[str, str]]:
    """Return a row of facts for each named set, and for each kind of data that has no name of its own."""
    rows = [facts(name, known) for name, known in NAMED_SETS.items()]
    for name, other in TORCHVISION_SETS.items():
        train, test = (str(count) if count else "" for count in other.images)
        rows.append(row(f"{PREFIX}{name}", str(other.classes), train, test, source="torchvision", terms=other.terms))
    kinds = {
        "FOLDER or ARCHIVE": "class folders, or train/ [val/] test/ of class folders; zip or tar, read in place",
        "FILE.csv": "a table of paths and labels: columns path,label[,split]",
        "hf:ORG/NAME": "a data set of the Hugging Face Hub (needs the extra hf)",
        "wds:PATH or URL": "WebDataset shards, tar files of images and .cls",
    }
    return rows + [row(name, summary=summary) for name, summary in kinds.items()]


def facts(name: str, known: NamedSet) -> dict[str, str]:
    """Return the row of a named set."""
    size = " + ".join(package.size for package in known.packages)
    source = " ".join(package.address for package in known.packages) or "embedded"
    test = str(known.test) if known.test else ""
    return row(name, str(known.classes), str(known.train), test, size, source, known.terms, known.summary)


def row(
    name: str,
    classes: str = "",
    train: str = "",
    test: str = "",
    size: str = "",
    source: str = "",
    terms: str = "",
    summary: str = "",
) -> dict[str, str]:
    """Return a row, so that all have the same columns."""
    keys = ("name", "classes", "train", "test", "size", "source", "terms", "summary")
    return dict(zip(keys, (name, classes, train, test, size, source, terms, summary), strict=True))
