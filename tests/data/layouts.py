"""Tiny data sets in the layout of the official archives, as path -> bytes."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from .trees import pack_tar, picture, write

Files = dict[str, bytes]
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


PurePickler: Any = pickle._Pickler  # type: ignore[attr-defined, unused-ignore]


class Python2Pickler(PurePickler):  # type: ignore[misc]
    """Writes a pickle as Python 2 did, in protocol 2: texts and bytes alike as strings of bytes."""

    dispatch: ClassVar[dict[Any, Any]] = dict(PurePickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        data = value.encode("ascii") if isinstance(value, str) else value
        head = b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data))
        self.write(head + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def python2_pickle(value: Any) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, 2).dump(value)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def rows(seed: int, count: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, width), dtype=np.uint8)


def cifar10(folder: str = "cifar-10-batches-py/") -> Files:
    """Six batches of twenty images; labels 0..9 twice, from another start in each."""
    files = {f"{folder}batches.meta": python2_pickle({"label_names": list(CIFAR10_NAMES), "num_vis": 3072})}
    for number in range(6):
        batch = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        files[folder + batch] = python2_pickle(
            {
                "batch_label": "training batch 1 of 5",
                "labels": [(i + number) % 10 for i in range(20)],
                "data": rows(number, 20, 3072),
                "filenames": [f"x_s_{i:06d}.png" for i in range(20)],
            }
        )
    return files


def cifar10_binary(folder: str = "cifar-10-batches-bin/") -> Files:
    """The images and labels of `cifar10`."""
    files = {f"{folder}batches.meta.txt": "\n".join([*CIFAR10_NAMES, "", ""]).encode()}
    for number in range(6):
        labels = np.array([(i + number) % 10 for i in range(20)], dtype=np.uint8)[:, None]
        batch = f"data_batch_{number + 1}.bin" if number < 5 else "test_batch.bin"
        files[folder + batch] = np.hstack([labels, rows(number, 20, 3072)]).tobytes()
    return files


CIFAR100_NAMES = tuple(f"fine{i:02d}" for i in range(100))


def cifar100(folder: str = "cifar-100-python/") -> Files:
    """300 training and 100 test images, three and one of each class; coarse labels beside the fine ones."""
    meta = {"fine_label_names": list(CIFAR100_NAMES), "coarse_label_names": [f"coarse{i}" for i in range(20)]}
    files = {f"{folder}meta": python2_pickle(meta)}
    for split, count in (("train", 300), ("test", 100)):
        labels = [i % 100 for i in range(count)]
        content = {"fine_labels": labels, "coarse_labels": [i % 20 for i in labels], "data": rows(count, count, 3072)}
        files[folder + split] = python2_pickle(content)
    return files


def cifar100_binary(folder: str = "cifar-100-binary/") -> Files:
    """The images and labels of `cifar100`."""
    files = {f"{folder}fine_label_names.txt": "\n".join(CIFAR100_NAMES).encode() + b"\n"}
    for split, count in (("train", 300), ("test", 100)):
        fine = (np.arange(count) % 100).astype(np.uint8)[:, None]
        files[f"{folder}{split}.bin"] = np.hstack([fine % 20, fine, rows(count, count, 3072)]).tobytes()
    return files


def stl10(folder: str = "stl10_binary/") -> Files:
    """30 training and 20 test images, labels from 1; the unlabelled file is there, as it is in the archive."""
    names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    files = {f"{folder}class_names.txt": ("\n".join(names) + "\n").encode(), f"{folder}unlabeled_X.bin": b""}
    for split, count in (("train", 30), ("test", 20)):
        files[f"{folder}{split}_X.bin"] = rows(count, count, 3 * 96 * 96).tobytes()
        files[f"{folder}{split}_y.bin"] = bytes(i % 10 + 1 for i in range(count))
    return files


def dtd(folder: str = "dtd/") -> Files:
    """Three textures of six images each: two in train1, two in val1, two in test1; split 2 has it the other way."""
    names = ("banded", "dotted", "zigzagged")
    paths = {name: [f"{name}/{name}_{i:04d}.jpg" for i in (2, 4, 5, 6, 8, 9)] for name in names}
    files = {f"{folder}images/{p}": picture(i) for i, p in enumerate(chain(*paths.values()))}
    for start, (first, second) in enumerate((("train1", "test2"), ("val1", "val2"), ("test1", "train2"))):
        lines = "".join(f"{p}\n" for name in names for p in paths[name][2 * start : 2 * start + 2])
        files[f"{folder}labels/{first}.txt"] = files[f"{folder}labels/{second}.txt"] = lines.encode()
    return files


def cub(folder: str = "CUB_200_2011/") -> Files:
    """Three birds of five images each: images 1, 2 and 4 of each to train on, 3 and 5 to test on."""
    names = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird")
    paths = [f"{name}/{name[4:]}_{i:04d}_{7 * i}.jpg" for name in names for i in range(1, 6)]
    table = {
        "images.txt": [f"{i} {path}" for i, path in enumerate(paths, 1)],
        "image_class_labels.txt": [f"{i} {(i - 1) // 5 + 1}" for i in range(1, 16)],
        "train_test_split.txt": [f"{i} {int((i - 1) % 5 in (0, 1, 3))}" for i in range(1, 16)],
        "classes.txt": [f"{i} {name}" for i, name in enumerate(names, 1)],
        "README": ["The Caltech-UCSD Birds-200-2011 Dataset"],
    }
    files = {folder + name: "".join(f"{line}\n" for line in lines).encode() for name, lines in table.items()}
    return files | {f"{folder}images/{path}": picture(i) for i, path in enumerate(paths)} | {"attributes.txt": b""}


DOGS = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02116738-African_hunting_dog")


def dog_list(paths: Sequence[str], labels: Sequence[int]) -> bytes:
    """A list as Matlab writes it: cells of texts in a column, and numbers in another."""
    cells = np.empty((len(paths), 1), dtype=object)
    cells[:, 0] = list(paths)
    stream: Any = io.BytesIO()  # the stubs know paths only
    content = {"file_list": cells, "annotation_list": cells, "labels": np.array(labels, dtype=np.float64)[:, None]}
    savemat(stream, content, do_compression=True)
    return stream.getvalue()


def dogs() -> tuple[Files, Files]:
    """Three breeds: three images of each to train on, two to test on; the archive of images and that of lists."""
    paths = {name: [f"{name}/{name.split('-')[0]}_{i}.jpg" for i in (10, 9, 100, 7, 30)] for name in DOGS}
    images = {f"Images/{p}": picture(i) for i, p in enumerate(chain(*paths.values()))}
    train = [(p, label) for label, name in enumerate(DOGS, 1) for p in paths[name][:3]]
    test = [(p, label) for label, name in enumerate(DOGS, 1) for p in paths[name][3:]]
    lists = {
        f"{name}_list.mat": dog_list(*zip(*pairs, strict=True)) for name, pairs in (("train", train), ("test", test))
    }
    return images, lists | {"file_list.mat": dog_list(*zip(*(train + test), strict=True))}


def caltech256(sizes: Mapping[str, int], folder: str = "256_ObjectCategories/") -> Files:
    """Classes of so many images, beside the two odd entries that the official archive has."""
    files = {f"{folder}{sorted(sizes)[0]}/RENAME2": b"#!/bin/sh", f"{folder}{sorted(sizes)[0]}/greg/x_0001.jpg": b""}
    seed = 0
    for name, size in sizes.items():
        for i in range(1, size + 1):
            files[f"{folder}{name}/{name[:3]}_{i:04d}.jpg"] = picture(seed := seed + 1, 8, 8)
    return files


def put(root: Path, files: Files, archive: str = "") -> Path:
    """The files below ``root``, or in an archive of this name in it."""
    if not archive:
        return write(root, files)
    compression = "gz" if archive.endswith("gz") else ""
    root.mkdir(exist_ok=True)
    pack_tar(root / archive, files, compression)
    return root
