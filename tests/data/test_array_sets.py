"""CIFAR-10, CIFAR-100 and STL-10 against torchvision's readers of the same files, and with mistakes planted in them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from autolora.data import Splits, load_splits
from autolora.errors import InputError

from . import layouts
from .layouts import Files, put, python2_pickle, rows

SETS: dict[str, tuple[Callable[..., Files], str, str, int]] = {
    "cifar10": (layouts.cifar10, "cifar-10-python.tar.gz", "CIFAR10", 32),
    "cifar100": (layouts.cifar100, "cifar-100-python.tar.gz", "CIFAR100", 32),
    "stl10": (layouts.stl10, "stl10_binary.tar.gz", "STL10", 96),
}
BINARY = {"cifar10": layouts.cifar10_binary, "cifar100": layouts.cifar100_binary}


def load(name: str, root: Path, size: int = 32, **options: Any) -> Splits:
    return load_splits(name, image_size=size, data_root=root, progress=False, **options)


def whole(splits: Splits, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (uint8) and labels of a split in the order of their names; validation images are training images."""
    parts = [splits.test] if split == "test" else [splits.train, splits.val]
    found = []
    for part in parts:
        x, y = part.with_augmentation(False).__getitems__(range(len(part)))
        found += [
            (name.rsplit("/", 1)[-1], (255 * image).round().byte(), int(label))
            for name, image, label in zip(part.names, x, y, strict=True)
        ]
    found.sort(key=lambda item: item[0])
    return torch.stack([image for _, image, _ in found]), torch.tensor([label for _, _, label in found])


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("packed", [False, True])
def test_images_and_labels_are_those_that_torchvision_reads(
    name: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, archive, cls, size = SETS[name]
    put(tmp_path / "folder", make())
    root = put(tmp_path / "packed", make(), archive) if packed else tmp_path / "folder"
    splits = load(name, root, size)
    theirs = getattr(datasets, cls)
    monkeypatch.setattr(theirs, "_check_integrity", lambda self: True)  # these would compare checksums
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    for split in ("train", "test"):
        option = {"split": split} if name == "stl10" else {"train": split == "train"}
        reference = theirs(tmp_path / "folder", **option)
        x, y = whole(splits, split)
        assert torch.equal(
            x, torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in reference])
        )
        assert y.tolist() == [label for _, label in reference]
        assert list(splits.classes) == list(reference.classes)


@pytest.mark.parametrize("name", BINARY)
def test_the_binary_version_is_the_same_data(name: str, tmp_path: Path) -> None:
    python = load(name, put(tmp_path / "python", SETS[name][0]()))
    binary = load(name, put(tmp_path / "binary", BINARY[name]()))
    assert binary.fingerprint == python.fingerprint and binary.train.names == python.train.names
    assert binary.record() == python.record()


def test_what_the_splits_are(tmp_path: Path) -> None:
    splits = load("cifar10", put(tmp_path, layouts.cifar10(), "cifar-10-python.tar.gz"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (80, 20, 20)
    assert splits.val.labels.bincount().tolist() == [2] * 10 == splits.test.labels.bincount().tolist()
    assert splits.train.augmentation == "crop-flip"
    assert "cifar10 has 100 + 20 images here, and officially 50,000 + 10,000" in splits.notes


def test_stl10_at_its_own_size_is_shifted_by_four_pixels(tmp_path: Path) -> None:
    train = load("stl10", put(tmp_path, layouts.stl10()), 96, augmentation="crop").train
    x = train.with_augmentation(False)[0][0]
    padded = torch.nn.functional.pad(x, [4] * 4)
    windows = [padded[:, top : top + 96, left : left + 96] for top in range(9) for left in range(9)]
    seen = set()
    for _ in range(60):
        cut = train[0][0]
        found = {index for index, window in enumerate(windows) if torch.equal(cut, window)}
        assert found
        seen |= found
    assert len(seen) > 20  # of 81


@pytest.mark.parametrize("place", ["{root}", "{root}/cifar10", "{root}/cifar10/cifar-10-batches-py"])
def test_where_an_unpacked_copy_may_lie(place: str, tmp_path: Path) -> None:
    target = Path(place.format(root=tmp_path))
    put(target, layouts.cifar10("" if target.name.startswith("cifar-10") else "cifar-10-batches-py/"))
    assert len(load("cifar10", tmp_path).test) == 20


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("where", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_malicious_pickle_does_not_run(where: str, protocol: int, packed: bool, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    files = layouts.cifar10()
    content = {"data": Canary(canary), "labels": [], "label_names": list(layouts.CIFAR10_NAMES)}
    files[f"cifar-10-batches-py/{where}"] = pickle.dumps(content, protocol)
    root = put(tmp_path / "root", files, "cifar-10-python.tar.gz" if packed else "")
    with pytest.raises(
        InputError, match=rf"{where} is refused, since unpickling it could run code \(.*mkdir\)"
    ) as error:
        load("cifar10", root)
    assert not canary.exists() and "\n" not in str(error.value)
    assert pickle.loads(files[f"cifar-10-batches-py/{where}"])["data"] is None and canary.exists()  # it would have


def batch(**changes: Any) -> bytes:
    content = {"labels": [i % 10 for i in range(20)], "data": rows(7, 20, 3072)} | changes
    return python2_pickle({key: value for key, value in content.items() if value is not None})


CIFAR10_MISTAKES: dict[str, tuple[str, bytes | None, str]] = {
    "missing file": ("data_batch_4", None, "lacks data_batch_4"),
    "missing names": ("batches.meta", None, "lacks batches.meta"),
    "labels from 1": (
        "data_batch_2",
        batch(labels=[i % 10 + 1 for i in range(20)]),
        "data_batch_2 gives image 9 a label 10",
    ),
    "labels below 0": (
        "test_batch",
        batch(labels=[i % 10 - 1 for i in range(20)]),
        "test_batch gives image 0 a label -1",
    ),
    "label no number": ("test_batch", batch(labels=["cat"] * 20), "image 0 a label of type str"),
    "one label short": ("data_batch_1", batch(labels=[0] * 19), r"shape \(20, 3072\) and 19 labels"),
    "no labels": ("data_batch_1", batch(labels=None), "and no labels"),
    "no images": ("data_batch_1", batch(data=None), "no array"),
    "wrong width": ("data_batch_1", batch(data=rows(0, 20, 3071)), r"shape \(20, 3071\)"),
    "wrong kind": ("data_batch_1", batch(data=np.zeros((20, 3072))), "unsigned bytes"),
    "duplicate": ("data_batch_5", batch(data=rows(1, 20, 3072)), "data_batch_5 holds the same images as data_batch_2"),
    "test is train": ("test_batch", batch(data=rows(0, 20, 3072)), "test_batch holds the same images as data_batch_1"),
    "no pickle": ("data_batch_1", b"GIF89a", "data_batch_1 cannot be read"),
    "no dictionary": ("data_batch_1", python2_pickle([1, 2]), "holds no dictionary"),
    "nine names": (
        "batches.meta",
        python2_pickle({"label_names": ["a"] * 9 + ["b"]}),
        "names 2 classes, and there are 10",
    ),
    "no names": ("batches.meta", python2_pickle({}), "no list label_names"),
}


@pytest.mark.parametrize("mistake", CIFAR10_MISTAKES)
def test_a_mistake_in_cifar10_is_named(mistake: str, tmp_path: Path) -> None:
    file, content, message = CIFAR10_MISTAKES[mistake]
    files = layouts.cifar10()
    del files[f"cifar-10-batches-py/{file}"]
    if content is not None:
        files[f"cifar-10-batches-py/{file}"] = content
    with pytest.raises(InputError, match=message) as error:
        load("cifar10", put(tmp_path, files, "cifar-10-python.tar.gz"))
    assert "\n" not in str(error.value) and "cifar-10-python.tar.gz" in str(error.value)


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        (
            "cifar10",
            "test_batch.bin",
            lambda data: data[:-1],
            "test_batch.bin has 61459 bytes, and an image takes 3073",
        ),
        ("cifar10", "test_batch.bin", lambda data: b"\x0a" + data[1:], "image 0 a label 10"),
        ("cifar100", "train.bin", lambda data: data[:1] + b"\x64" + data[2:], "image 0 a label 100"),
        ("cifar100", "test.bin", lambda data: b"", "has 0 bytes"),
    ],
)
def test_a_mistake_in_a_binary_version_is_named(
    name: str, file: str, change: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    files = BINARY[name]()
    path = next(path for path in files if path.endswith(file))
    with pytest.raises(InputError, match=message):
        load(name, put(tmp_path, files | {path: change(files[path])}))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("train_y.bin", None, "lacks train_y.bin"),
        ("class_names.txt", None, "lacks class_names.txt"),
        (
            "test_y.bin",
            lambda data: bytes(v - 1 for v in data),
            "test_y.bin gives image 0 a label 0, not one of 1 to 10",
        ),
        ("test_y.bin", lambda data: bytes(v + 1 for v in data), "image 9 a label 11"),
        ("test_y.bin", lambda data: data[:-1], "19 labels for 20 images"),
        ("test_X.bin", lambda data: data[:-1], "cut off"),
        ("class_names.txt", lambda data: data.replace(b"truck", b"dog"), "names 9 classes"),
        ("class_names.txt", lambda data: b"\xff\xfe", "is no text"),
    ],
)
def test_a_mistake_in_stl10_is_named(
    file: str, change: Callable[[bytes], bytes] | None, message: str, tmp_path: Path
) -> None:
    files = layouts.stl10()
    data = files.pop(f"stl10_binary/{file}")
    if change is not None:
        files[f"stl10_binary/{file}"] = change(data)
    with pytest.raises(InputError, match=message):
        load("stl10", put(tmp_path, files))


def test_a_label_that_would_be_gigabytes_in_writing(tmp_path: Path) -> None:
    bomb: list[Any] = []
    for _ in range(64):
        bomb = [bomb, bomb]  # each of them is written once, and then referred to
    files = layouts.cifar10() | {"cifar-10-batches-py/data_batch_1": batch(labels=[bomb] * 20)}
    with pytest.raises(InputError, match="image 0 a label of type list"):
        load("cifar10", put(tmp_path, files))


def test_a_train_file_in_place_of_the_test_file_is_named(tmp_path: Path) -> None:
    files = layouts.stl10()
    for kind in "Xy":
        files[f"stl10_binary/test_{kind}.bin"] = files[f"stl10_binary/train_{kind}.bin"]
    with pytest.raises(InputError, match=r"test_X\.bin holds the same images as train_X\.bin"):
        load("stl10", put(tmp_path, files))
