"""DTD, CUB, Stanford Dogs and Caltech-256: splits, labels and counts, and mistakes planted in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torchvision import datasets

from autolora.data import ImageSet, Splits, load_splits
from autolora.errors import InputError

from . import layouts
from .layouts import DOGS, Files, dog_list, put

ARCHIVES = {"dtd": "dtd-r1.0.1.tar.gz", "cub": "CUB_200_2011.tgz", "caltech256": "256_ObjectCategories.tar"}
FOLDERS = {"dtd": "dtd/", "cub": "CUB_200_2011/", "caltech256": "256_ObjectCategories/"}


def load(name: str, root: Path, **options: Any) -> Splits:
    return load_splits(name, image_size=8, data_root=root, progress=False, **options)


def listed(*parts: ImageSet) -> list[str]:
    """Class and file of every image."""
    return sorted("/".join(name.replace(":", "/").split("/")[-2:]) for part in parts for name in part.names)


def labelled(splits: Splits) -> bool:
    """Whether every image has the label of its folder."""
    parts = (splits.train, splits.val, splits.test)
    return all(
        name.split("/")[-2] == splits.classes[label]
        for part in parts
        for name, label in zip(part.names, part.labels.tolist(), strict=True)
    )


@pytest.mark.parametrize("packed", [False, True])
def test_dtd_trains_on_train_and_val_of_split_1(packed: bool, tmp_path: Path) -> None:
    put(tmp_path / "torchvision" / "dtd", layouts.dtd())  # where torchvision puts it
    root = put(tmp_path / "packed", layouts.dtd(), ARCHIVES["dtd"]) if packed else tmp_path / "torchvision"
    splits = load("dtd", root)
    assert splits.classes == ("banded", "dotted", "zigzagged") and labelled(splits)
    for ours, theirs in (((splits.train, splits.val), ("train", "val")), ((splits.test,), ("test",))):
        reference = [datasets.DTD(tmp_path / "torchvision", split=split) for split in theirs]
        assert listed(*ours) == sorted("/".join(path.parts[-2:]) for data in reference for path in data._image_files)
    assert (len(splits.train) + len(splits.val), len(splits.test)) == (12, 6)
    assert any("split 1 of the ten" in note for note in splits.notes)


@pytest.mark.parametrize("packed", [False, True])
def test_cub(packed: bool, tmp_path: Path) -> None:
    splits = load("cub", put(tmp_path, layouts.cub(), ARCHIVES["cub"] if packed else ""))
    assert splits.classes == ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird")
    assert labelled(splits)
    trained = [re.findall(r"_(\d{4})_", name)[0] for name in (*splits.train.names, *splits.val.names)]
    tested = [re.findall(r"_(\d{4})_", name)[0] for name in splits.test.names]
    assert Counter(trained) == {"0001": 3, "0002": 3, "0004": 3} and Counter(tested) == {"0003": 3, "0005": 3}


@pytest.mark.parametrize("packed", [False, True])
def test_dogs(packed: bool, tmp_path: Path) -> None:
    images, lists = layouts.dogs()
    put(tmp_path, images, "images.tar" if packed else "")
    put(tmp_path, lists, "lists.tar" if packed else "")
    splits = load("dogs", tmp_path)
    assert splits.classes == DOGS and labelled(splits)
    numbers = [name.split("_")[-1] for name in (*splits.train.names, *splits.val.names)]
    assert Counter(numbers) == {"10.jpg": 3, "9.jpg": 3, "100.jpg": 3}
    assert splits.test.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_dogs_follow_the_labels_where_folders_are_in_another_order(tmp_path: Path) -> None:
    images, lists = layouts.dogs()
    paths = [path.removeprefix("Images/") for path in images]
    labels = [{0: 3, 1: 1, 2: 2}[DOGS.index(path.split("/")[0])] for path in paths]
    for file, part in (("train_list.mat", slice(0, None, 2)), ("test_list.mat", slice(1, None, 2))):
        lists[file] = dog_list(paths[part], labels[part])
    put(tmp_path, images | lists)
    assert load("dogs", tmp_path).classes == (DOGS[1], DOGS[2], DOGS[0])


def changed(files: Files, path: str, change: Callable[[str], str] | None) -> Files:
    data = files[path].decode()
    rest = {name: content for name, content in files.items() if name != path}
    return rest if change is None else rest | {path: change(data).encode()}


def swap(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert re.search(old, text, re.M)
        return re.sub(old, new, text, count=1, flags=re.M)

    return change


BIRD = "002.Laysan_Albatross/Laysan_Albatross_0001_7.jpg"
TEXT_MISTAKES: dict[str, tuple[str, str, Callable[[str], str] | None, str]] = {
    "no list": ("dtd", "labels/val1.txt", None, "lacks labels/val1.txt"),
    "no texture": (
        "dtd",
        "images/dotted/dotted_0005.jpg",
        None,
        "lacks 1 of 18 listed images, the first images/dotted/dotted_0005.jpg .labels/val1.txt, line 3.",
    ),
    "texture twice": (
        "dtd",
        "labels/val1.txt",
        swap("banded_0005", "banded_0002"),
        r"banded_0002.jpg is listed twice \(labels/train1.txt, line 1; labels/val1.txt, line 1\);",
    ),
    "texture in train and test": (
        "dtd",
        "labels/test1.txt",
        swap("banded_0008", "banded_0002"),
        "listed twice .* once for train and once for test",
    ),
    "no class": ("dtd", "labels/train1.txt", swap("banded/", ""), "labels/train1.txt, line 1, is no CLASS/IMAGE"),
    "path that leads out": (
        "dtd",
        "labels/train1.txt",
        swap("banded/.*", "banded/../../../etc/passwd"),
        "lacks 1 of 18 listed images",
    ),
    "no classes.txt": ("cub", "classes.txt", None, "lacks classes.txt"),
    "no images.txt": ("cub", "images.txt", None, "lacks images.txt"),
    "no bird": ("cub", f"images/{BIRD}", None, rf"lacks 1 of 15 listed images, the first images/{BIRD} \(image 6\)"),
    "off by one": (
        "cub",
        "image_class_labels.txt",
        swap("^6 2$", "6 3"),
        rf"{BIRD} has the label of 010.Red_winged_Blackbird \(image 6\), and lies in 002.Laysan",
    ),
    "all off by one": (
        "cub",
        "image_class_labels.txt",
        lambda text: re.sub(r" (\d+)$", lambda m: f" {int(m[1]) - 1}", text, flags=re.M),
        "gives image 1 the class 0, which is not one of the 3",
    ),
    "beyond": ("cub", "image_class_labels.txt", swap("^15 3$", "15 4"), "gives image 15 the class 4"),
    "bird twice": (
        "cub",
        "images.txt",
        swap(r"Laysan_Albatross_0002_14", "Laysan_Albatross_0001_7"),
        r"listed twice \(image 6; image 7\);",
    ),
    "bird in train and test": (
        "cub",
        "images.txt",
        swap(r"Laysan_Albatross_0003_21", "Laysan_Albatross_0001_7"),
        "once for train and once for test",
    ),
    "number twice": ("cub", "images.txt", swap("^7 ", "6 "), "images.txt, line 7, repeats 6"),
    "label missing": (
        "cub",
        "image_class_labels.txt",
        swap("^7 2\n", ""),
        "image_class_labels.txt has no line for image 7 of images.txt",
    ),
    "split missing": (
        "cub",
        "train_test_split.txt",
        swap("^7 1\n", ""),
        "train_test_split.txt has no line for image 7",
    ),
    "one too many": (
        "cub",
        "train_test_split.txt",
        lambda text: text + "16 1\n",
        "a line for image 16, which is not in images.txt",
    ),
    "split is a word": ("cub", "train_test_split.txt", swap("^7 1$", "7 train"), "gives image 7 'train', not 0 or 1"),
    "two classes of one name": (
        "cub",
        "classes.txt",
        swap("002.Laysan_Albatross", "001.Black_footed_Albatross"),
        "two classes one name",
    ),
    "half a line": ("cub", "images.txt", swap("^7 .*$", "7"), "images.txt, line 7, is no pair"),
}


@pytest.mark.parametrize("mistake", TEXT_MISTAKES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_mistake_in_a_list_is_named(mistake: str, packed: bool, tmp_path: Path) -> None:
    name, path, change, message = TEXT_MISTAKES[mistake]
    files = changed_or_gone(getattr(layouts, name)(), FOLDERS[name] + path, change)
    with pytest.raises(InputError, match=message) as error:
        load(name, put(tmp_path, files, ARCHIVES[name] if packed else ""))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def changed_or_gone(files: Files, path: str, change: Callable[[str], str] | None) -> Files:
    return {p: data for p, data in files.items() if p != path} if change is None else changed(files, path, change)


def dog_pairs(train: bool) -> tuple[list[str], list[int]]:
    numbers = (10, 9, 100) if train else (7, 30)
    pairs = [(f"{name}/{name.split('-')[0]}_{i}.jpg", label) for label, name in enumerate(DOGS, 1) for i in numbers]
    return [path for path, _ in pairs], [label for _, label in pairs]


def test_mistakes_in_the_lists_of_dogs_are_named(tmp_path: Path) -> None:
    images, lists = layouts.dogs()
    put(tmp_path, images)
    paths, labels = dog_pairs(train=True)
    chihuahua = paths[0]
    mistakes: list[tuple[dict[str, bytes], str]] = [
        (
            {"train_list.mat": dog_list(paths, [2, *labels[1:]])},
            r"train_list.mat gives .*Chihuahua.* the label \d, and other images of n02085620-Chihuahua the label",
        ),
        (
            {
                "train_list.mat": dog_list(paths, [v - 1 for v in labels]),
                "test_list.mat": dog_list(dog_pairs(False)[0], [v - 1 for v in dog_pairs(False)[1]]),
            },
            "the labels run from 0 to 2 for 3 classes, and should count from 1",
        ),
        (
            {"train_list.mat": dog_list(paths, [v + 1 for v in labels])},
            "other images of n02085620-Chihuahua the label 2",
        ),
        (
            {"train_list.mat": dog_list(paths, [1 if v == 2 else v for v in labels])},
            "images of n02085620-Chihuahua the same|other images of",
        ),
        (
            {"train_list.mat": dog_list([chihuahua, *paths], [1, *labels])},
            rf"{chihuahua} is listed twice \(train_list.mat, entry 1; train_list.mat, entry 2\);",
        ),
        ({"test_list.mat": dog_list([chihuahua, *paths], [1, *labels])}, "once for train and once for test"),
        ({"train_list.mat": dog_list(paths, labels[1:])}, "train_list.mat has 8 labels for 9 images"),
        ({"train_list.mat": b"MATLAB 5.0 MAT-file"}, "train_list.mat cannot be read"),
        ({"train_list.mat": lists["train_list.mat"][:-40]}, "train_list.mat cannot be read"),
    ]
    for change, message in mistakes:
        put(tmp_path, lists | change)
        with pytest.raises(InputError, match=message) as error:
            load("dogs", tmp_path)
        assert "\n" not in str(error.value)
    put(tmp_path, lists)
    (tmp_path / "Images" / chihuahua).unlink()
    with pytest.raises(
        InputError, match=rf"lacks 1 of 15 listed images, the first {chihuahua} \(train_list.mat, entry 1\)"
    ):
        load("dogs", tmp_path)
    (tmp_path / "test_list.mat").unlink()
    with pytest.raises(InputError, match=r"lacks test_list\.mat"):
        load("dogs", tmp_path)


SIZES = {"001.ak47": 70, "002.american-flag": 61, "257.clutter": 80}


def renumbered(sizes: dict[str, int]) -> dict[str, int]:
    return {f"{number:03d}{name[3:]}": size for number, (name, size) in enumerate(sizes.items(), 1)}


@pytest.mark.parametrize("packed", [False, True])
def test_caltech256_trains_on_the_first_60_of_each_class(packed: bool, tmp_path: Path) -> None:
    sizes = renumbered(SIZES)
    splits = load("caltech256", put(tmp_path, layouts.caltech256(sizes), ARCHIVES["caltech256"] if packed else ""))
    assert splits.classes == ("001.ak47", "002.american-flag", "003.clutter") and labelled(splits)
    first = [f"{name}/{name[:3]}_{i:04d}.jpg" for name in sizes for i in range(1, 61)]
    rest = [f"{name}/{name[:3]}_{i:04d}.jpg" for name, size in sizes.items() for i in range(61, size + 1)]
    assert listed(splits.train, splits.val) == first and listed(splits.test) == rest


def by_the_released_code(labels: list[int], per_class: int) -> tuple[list[int], list[int]]:
    """The indices that methods.md 4 describes: a range from the start of each class, and what is in none of them."""
    starts = [0] + [i for i in range(1, len(labels)) if labels[i] != labels[i - 1]]
    train = [i for start in starts for i in range(start, start + per_class)]
    return train, sorted(set(range(1, len(labels))) - set(train))


def test_the_released_caltech256_has_its_duplicates_and_its_few_test_classes(tmp_path: Path) -> None:
    sizes = {"001.ak47": 100, "002.american-flag": 153, "003.backpack": 90, "004.clutter": 160}
    put(tmp_path / "caltech256", layouts.caltech256(sizes))
    splits = load("caltech256-released", tmp_path)
    reference = datasets.Caltech256(str(tmp_path))
    train, test = by_the_released_code(reference.y, 150)
    paths = [
        f"{reference.categories[y]}/{y + 1:03d}_{i:04d}.jpg" for y, i in zip(reference.y, reference.index, strict=True)
    ]
    assert len(train) == 600 and len(set(train)) == 490 and len(test) == 13
    assert listed(splits.test) == [paths[i] for i in test] and labelled(splits)
    assert splits.test.labels.bincount(minlength=4).tolist() == [0, 3, 0, 10]

    trained, validated = Counter(listed(splits.train)), Counter(listed(splits.val))
    whole = Counter(paths[i] for i in train)
    assert not trained.keys() & validated.keys()  # all copies of an image are on one side
    assert set(validated.values()) == {1} and trained | validated == trained + validated
    assert trained == {path: count for path, count in whole.items() if path not in validated}
    assert trained.keys() | validated.keys() == whole.keys()
    note = next(note for note in splits.notes if "released code" in note)
    assert "110 of the 600 training images are duplicates" in note and "2 of the 4 classes" in note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"002.american-flag/002_0030.jpg": None}, "lacks 002.american-flag/002_0030.jpg; it is incomplete"),
        (
            {"002.american-flag/001_0071.jpg": b""},
            "002.american-flag/001_0071.jpg has the number of class 001, and lies in class 002",
        ),
        ({"005.backpack/005_0001.jpg": b""}, "lacks class 004, or has it twice"),
        ({"002.baseball/002_0001.jpg": b""}, "lacks class 003, or has it twice"),
        ({"003.clutter/003_0061.jpg": None, "003.clutter/003_0062.jpg": None}, None),
    ],
)
def test_a_mistake_in_caltech256_is_named(change: dict[str, bytes | None], message: str | None, tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {
        **layouts.caltech256({"001.ak47": 70, "002.american-flag": 61, "003.clutter": 62})
    }
    files |= {f"256_ObjectCategories/{path}": data for path, data in change.items()}
    put(tmp_path, {path: data for path, data in files.items() if data is not None})
    with pytest.raises(InputError, match=message or "class 003.clutter has 60 images, and the split takes 60"):
        load("caltech256", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10", "dtd", "dogs", "cub", "caltech256"])
def test_what_is_absent_is_told_with_address_size_and_terms(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOLORA_DATA", str(tmp_path))
    with pytest.raises(InputError, match=rf"{name} is not in {tmp_path}") as error:
        load_splits(name, image_size=8, progress=False)
    message = str(error.value)
    assert re.search(r"https?://\S+", message) and re.search(r"[MG]iB\)", message) and "Terms: " in message
    assert "\n" not in message and ("--download" in message) == (name != "dogs")  # no checksum is known of dogs


def test_another_archive_of_the_same_name_is_told(tmp_path: Path) -> None:
    put(tmp_path, {"photos/a.txt": b""}, "CUB_200_2011.tgz")
    with pytest.raises(InputError, match=r"holds no folder CUB_200_2011, so it is not the CUB_200_2011\.tgz of https"):
        load("cub", tmp_path)
    (tmp_path / "CUB_200_2011.tgz").write_bytes(b"half a download")
    with pytest.raises(InputError, match="damaged or incomplete"):
        load("cub", tmp_path)
