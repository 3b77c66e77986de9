"""Data sets of the Hugging Face Hub, from local files in its formats: nothing is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from autolora.data import Splits, load_splits
from autolora.errors import InputError

from .trees import picture, pictures, write


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, with a cache of its own and no network."""
    pytest.importorskip("datasets")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


def load(data: str, **options: Any) -> Splits:
    return load_splits(f"hf:{data}", image_size=8, progress=False, **options)


def rows(hub: Any, count: int, labels: dict[str, Any], **features: Any) -> Any:
    """``count`` rows of an image column and label columns."""
    columns = {"img": [{"bytes": picture(i), "path": None} for i in range(count)]}
    columns |= {name: [value(i) for i in range(count)] for name, value in labels.items()}
    return hub.Dataset.from_dict(columns, features=hub.Features({"img": hub.Image(), **features}))


def parquet(folder: Path, **splits: Any) -> str:
    folder.mkdir()
    for split, data in splits.items():
        data.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return str(folder)


def test_images_and_labels(hub: Any, tmp_path: Path) -> None:
    names = hub.ClassLabel(names=["zebra", "ant"])  # the order of the labels is not the alphabet's
    make = {"label": lambda i: i % 2}
    path = parquet(tmp_path / "d", train=rows(hub, 20, make, label=names), test=rows(hub, 6, make, label=names))
    splits = load(path)
    assert splits.classes == ("zebra", "ant")
    assert (len(splits.train) + len(splits.val), len(splits.test)) == (20, 6)
    files = {f"{('zebra', 'ant')[i % 2]}/{i:02d}.png": picture(i) for i in range(6)}
    reference = load_splits(write(tmp_path / "f", files), image_size=8, progress=False)
    expected = {
        image.numpy().tobytes(): reference.classes[y]
        for part in (reference.train, reference.val, reference.test)
        for image, y in map(part.with_augmentation(False).__getitem__, range(len(part)))
    }
    for image, y in map(splits.test.__getitem__, range(6)):
        assert expected[image.numpy().tobytes()] == splits.classes[y]


def test_a_folder_of_images_and_val_as_test(hub: Any, tmp_path: Path) -> None:
    files = pictures({"train/a": 10, "train/b": 10, "validation/a": 3, "validation/b": 3})
    splits = load(str(write(tmp_path / "d", files)))
    assert splits.classes == ("a", "b") and len(splits.test) == 6
    assert any("val is the test split" in note for note in splits.notes)


def test_columns_can_be_chosen(hub: Any, tmp_path: Path) -> None:
    names = {"coarse": hub.ClassLabel(names=["x", "y"]), "fine": hub.ClassLabel(names=["p", "q", "r"])}
    data = rows(hub, 30, {"coarse": lambda i: i % 2, "fine": lambda i: i % 3}, **names)
    path = parquet(tmp_path / "d", train=data)
    with pytest.raises(InputError, match=rf"2 columns that may be the label \(coarse, fine\).*hf:{path},label=coarse"):
        load(path)
    assert load(f"{path},label=fine").classes == ("p", "q", "r")
    assert load(f"{path},label=coarse,image=img").classes == ("x", "y")
    with pytest.raises(InputError, match=r"no column 'lable'; its columns are img, coarse, fine"):
        load(f"{path},label=lable")


def test_labels_without_names_are_their_own(hub: Any, tmp_path: Path) -> None:
    data = rows(hub, 20, {"label": lambda i: ("b", "a")[i % 2]}, label=hub.Value("string"))
    assert load(parquet(tmp_path / "d", train=data)).classes == ("a", "b")


def test_hidden_labels_and_empty_cells_are_told(hub: Any, tmp_path: Path) -> None:
    names = hub.ClassLabel(names=["a", "b"])
    hidden = parquet(
        tmp_path / "hidden",
        train=rows(hub, 20, {"label": lambda i: i % 2}, label=names),
        test=rows(hub, 4, {"label": lambda i: -1}, label=names),
    )
    with pytest.raises(InputError, match="row 0 of test has the label -1, which is none"):
        load(hidden)
    cells = [{"bytes": picture(i), "path": None} if i else None for i in range(20)]
    columns = {"img": cells, "label": [i % 2 for i in range(20)]}
    data = hub.Dataset.from_dict(columns, features=hub.Features({"img": hub.Image(), "label": names}))
    with pytest.raises(InputError, match=r"a/00000000 cannot be read as an image \(the row has no image\)"):
        load(parquet(tmp_path / "empty", train=data))


def test_what_cannot_be_loaded_is_told_in_one_line(hub: Any, tmp_path: Path) -> None:
    for data in (str(tmp_path / "nowhere"), "nobody/nothing"):
        with pytest.raises(InputError, match=f"hf:{data} could not be loaded") as error:
            load(data)
        assert "\n" not in str(error.value)
    write(tmp_path / "script", {"script.py": b"raise SystemExit('it ran')"})
    with pytest.raises(InputError, match="could not be loaded"):
        load(str(tmp_path / "script"))


@pytest.mark.parametrize("data", ["a/b,lable=x", "a/b,label", "a/b,label="])
def test_an_unknown_option_is_told(data: str) -> None:
    with pytest.raises(InputError, match=r"is no option; after the name come image=\.\.\., label=\.\.\.,"):
        load(data)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"hf:org/name needs the package datasets; install it: pip install '\.\[hf\]'"):
        load("org/name")
