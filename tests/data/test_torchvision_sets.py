"""Each of torchvision's sets from a tiny copy in its layout, against the items that torchvision itself gives."""

from __future__ import annotations

import bz2
import io
import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets

from autolora.data import Splits, load_splits
from autolora.data.sets.torchvision_sets import TORCHVISION_SETS
from autolora.errors import InputError

from .layouts import Files, rows
from .trees import picture, write


def matlab(**content: object) -> bytes:
    stream: Any = io.BytesIO()  # the stubs know paths only
    savemat(stream, content)
    return bytes(stream.getvalue())


def mnist(name: str) -> Files:
    files = {}
    for split, count in (("train", 30), ("t10k", 10)):
        head = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28)
        files[f"{name}/raw/{split}-images-idx3-ubyte"] = head + rows(count, count, 784).tobytes()
        labels = bytes(i % 10 for i in range(count))
        files[f"{name}/raw/{split}-labels-idx1-ubyte"] = struct.pack(">BBBBI", 0, 0, 8, 1, count) + labels
    return files


def usps() -> Files:
    def lines(count: int) -> bytes:
        pixels = rows(count, count, 256) / 127.5 - 1
        text = [
            f"{i % 10 + 1} " + " ".join(f"{j + 1}:{v:.4f}" for j, v in enumerate(row)) for i, row in enumerate(pixels)
        ]
        return bz2.compress("\n".join(text).encode())

    return {"usps.bz2": lines(30), "usps.t.bz2": lines(10)}


def svhn() -> Files:
    def split(count: int) -> bytes:
        pixels = rows(count, count, 32 * 32 * 3).reshape(count, 32, 32, 3).transpose(1, 2, 3, 0)
        return matlab(X=pixels, y=np.array([[i % 10 + 1] for i in range(count)], dtype=np.uint8))  # 10 is the digit 0

    return {"train_32x32.mat": split(30), "test_32x32.mat": split(10)}


def eurosat() -> Files:
    names = ("AnnualCrop", "Forest", "River")
    return {f"eurosat/2750/{name}/{name}_{i}.jpg": picture(i) for name in names for i in range(1, 7)}


def flowers() -> Files:
    ids = {"trnid": range(1, 205), "valid": range(205, 307), "tstid": range(307, 511)}  # two, one and two of each class
    files = {f"flowers-102/jpg/image_{i:05d}.jpg": picture(i) for i in range(1, 511)}
    labels = np.array([[(i - 1) % 102 + 1 for i in range(1, 511)]])
    files["flowers-102/imagelabels.mat"] = matlab(labels=labels)
    return files | {"flowers-102/setid.mat": matlab(**{key: np.array([list(value)]) for key, value in ids.items()})}


def food() -> Files:
    paths = {name: [f"{name}/{i}" for i in range(6)] for name in ("apple_pie", "waffles")}
    files = {f"food-101/images/{p}.jpg": picture(i) for i, p in enumerate(p for ps in paths.values() for p in ps)}
    for split, part in (("train", slice(0, 4)), ("test", slice(4, 6))):
        files[f"food-101/meta/{split}.json"] = json.dumps({name: ps[part] for name, ps in paths.items()}).encode()
    return files


def aircraft() -> Files:
    data = "fgvc-aircraft-2013b/data/"
    files = {f"{data}images/{i:07d}.jpg": picture(i) for i in range(12)}
    files[f"{data}variants.txt"] = b"707-320\nA300 B4\n"
    for split, ids in (("trainval", range(8)), ("test", range(8, 12))):
        lines = "".join(f"{i:07d} {('707-320', 'A300 B4')[i % 2]}\n" for i in ids)
        files[f"{data}images_variant_{split}.txt"] = lines.encode()
    return files


def pets() -> Files:
    names = [f"{name}_{i}" for name in ("Abyssinian", "american_bulldog") for i in range(1, 7)]
    files = {f"oxford-iiit-pet/images/{name}.jpg": picture(i) for i, name in enumerate(names)}
    for split, ids in (("trainval", (1, 2, 3, 4)), ("test", (5, 6))):
        lines = [f"{name} {1 + (name[0] == 'a')} 1 1\n" for name in names if int(name.rsplit("_")[-1]) in ids]
        files[f"oxford-iiit-pet/annotations/{split}.txt"] = "".join(lines).encode()
    return files


def gtsrb() -> Files:
    train = {f"gtsrb/GTSRB/Training/{c:05d}/{i:05d}.ppm": picture(9 * c + i) for c in range(2) for i in range(4)}
    test = {f"gtsrb/GTSRB/Final_Test/Images/{i:05d}.ppm": picture(50 + i) for i in range(4)}
    lines = ["Filename;Width;Height;ClassId", *(f"{i:05d}.ppm;10;10;{i % 2}" for i in range(4))]
    return train | test | {"gtsrb/GT-final_test.csv": "\n".join(lines).encode()}


MAKERS: dict[str, Callable[[], Files]] = {
    **{name: partial(mnist, name) for name in ("MNIST", "FashionMNIST", "KMNIST")},
    "USPS": usps,
    "SVHN": svhn,
    "EuroSAT": eurosat,
    "Flowers102": flowers,
    "Food101": food,
    "FGVCAircraft": aircraft,
    "OxfordIIITPet": pets,
    "GTSRB": gtsrb,
}


def load(name: str, root: Path) -> Splits:
    return load_splits(f"torchvision:{name}", image_size=8, data_root=root, progress=False)


def test_every_set_has_a_tiny_copy_here() -> None:
    assert MAKERS.keys() == TORCHVISION_SETS.keys()


@pytest.mark.parametrize("name", MAKERS)
def test_a_set_is_what_torchvision_gives(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, MAKERS[name]())
    cls = getattr(datasets, name)
    if hasattr(cls, "_check_integrity"):
        monkeypatch.setattr(cls, "_check_integrity", lambda self: True)  # which would compare checksums
    splits = load(name, root)
    known = TORCHVISION_SETS[name]
    assert (splits.train.augmentation == "crop") == (name in ("MNIST", "KMNIST", "USPS", "SVHN", "GTSRB"))
    train, test = (splits.train, splits.val), (splits.test,)
    for parts, split in ((train, "train"), *([(test, "test")] if "test" in known.splits else [])):
        options = [
            known.splits[key] for key in (("train", "val") if split == "train" else ("test",)) if key in known.splits
        ]
        reference = [item for option in options for item in cls(str(root), **option)]
        # every image comes once, with its label: compared as a multiset of pixels and label
        ours = [
            (x.mul(255).round().byte().numpy().tobytes(), int(y))
            for part in parts
            for x, y in (part.with_augmentation(False)[i] for i in range(len(part)))
        ]
        theirs = [(reduced(image), int(label)) for image, label in reference]
        if name == "Flowers102" and min(label for _, label in theirs) == 1:  # as older versions of torchvision count
            theirs = [(image, label - 1) for image, label in theirs]
        if "test" not in known.splits:  # some were held out
            assert set(ours) < set(theirs)
        else:
            assert sorted(ours) == sorted(theirs)


def reduced(image: object) -> bytes:
    from torchvision.transforms import v2

    small = v2.Compose([v2.Resize(8, antialias=True), v2.CenterCrop(8), v2.PILToTensor()])(image.convert("RGB"))  # type: ignore[attr-defined]
    assert isinstance(small, torch.Tensor)
    return small.numpy().tobytes()


def test_class_names_come_from_torchvision_where_it_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    root = write(tmp_path, eurosat() | svhn())
    assert load("EuroSAT", root).classes == ("AnnualCrop", "Forest", "River")
    assert load("SVHN", root).classes == tuple("0123456789")


@pytest.mark.parametrize("name", ["MNIST", "USPS", "Food101", "FGVCAircraft"])
def test_what_is_absent_or_damaged_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"torchvision cannot read {name} in {tmp_path}") as error:
        load(name, tmp_path)
    assert "\n" not in str(error.value) and "Terms: " in str(error.value)
    assert ("--download" in str(error.value)) == (name != "FGVCAircraft")
    write(tmp_path, {path: data[:100] for path, data in MAKERS[name]().items()})
    with pytest.raises(InputError, match=f"torchvision cannot read {name}|is bad|are bad|cannot be read as an image"):
        load(name, tmp_path)


def test_an_unknown_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torchvision:ImageNet is not one .*\(MNIST, .*GTSRB\)"):
        load("ImageNet", tmp_path)
