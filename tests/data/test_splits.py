import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from autolora.data import ImageSet, Splits, load_part, load_splits, loader
from autolora.data.decoding import decode
from autolora.errors import InputError

from .trees import SHARED, pack_tar, pack_zip, pictures, write

ALONE = {"cats": 12, "dogs": 20}
PARTED = {"train/cats": 8, "train/dogs": 12, "test/cats": 4, "test/dogs": 3}


def load(data: str | Path, image_size: int = 8, **options: Any) -> Splits:
    return load_splits(data, image_size=image_size, progress=False, **options)


def everything(images: ImageSet) -> tuple[torch.Tensor, torch.Tensor]:
    return images.with_augmentation(False).__getitems__(range(len(images)))


def keys(images: ImageSet) -> list[str]:
    """The last two parts of each name: class and file."""
    return [name.replace(":", "/").split("/")[-2] + "/" + name.split("/")[-1] for name in images.names]


def counts(images: ImageSet) -> list[int]:
    return torch.bincount(images.labels).tolist()


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    return write(tmp_path / "alone", pictures(ALONE))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    val=st.none() | st.floats(0.15, 0.5),
    test=st.floats(0.1, 0.5),
    label=st.floats(0.05, 1.0),
)
def test_splits_are_disjoint_stratified_and_seeded(
    tmp_path: Path, seed: int, val: float | None, test: float, label: float
) -> None:
    folder = tmp_path / "alone"
    if not folder.exists():
        write(folder, pictures(ALONE))
    options: dict[str, Any] = {"seed": seed, "val_fraction": val, "test_fraction": test, "label_fraction": label}
    before = torch.get_rng_state()
    splits = load(folder, **options)
    assert torch.equal(before, torch.get_rng_state())
    names = [name for part in (splits.train, splits.val, splits.test) for name in part.names]
    assert len(set(names)) == len(names) <= 32
    if label == 1:
        assert len(names) == 32
    for part in (splits.train, splits.val, splits.test):
        assert len(counts(part)) == 2 and min(counts(part)) >= 1
        assert all(splits.classes[y] in name for y, name in zip(part.labels, part.names, strict=True))
    again = load(folder, **options)
    assert [again.train.names, again.val.names] == [splits.train.names, splits.val.names]


def test_the_seed_matters(alone: Path) -> None:
    assert load(alone, seed=0).test.names != load(alone, seed=1).test.names
    assert load(alone, seed=0).fingerprint == load(alone, seed=1).fingerprint


def test_folder_zip_and_tar_are_the_same_data(tmp_path: Path) -> None:
    files = pictures(PARTED)
    wrapped = {f"w/{name}": data for name, data in files.items()}
    places = [
        write(tmp_path / "folder", files),
        pack_zip(tmp_path / "x.zip", wrapped),
        pack_tar(tmp_path / "x.tar", files),
        pack_tar(tmp_path / "x.tar.gz", wrapped, "gz"),
    ]
    first, *others = [load(place) for place in places]
    for other in others:
        assert other.fingerprint == first.fingerprint
        for part in ("train", "val", "test"):
            ours, theirs = getattr(first, part), getattr(other, part)
            assert keys(ours) == keys(theirs)
            assert torch.equal(everything(ours)[0], everything(theirs)[0])


def test_the_fingerprint_follows_content_names_and_labels(alone: Path) -> None:
    prints = {load(alone).fingerprint, load(alone, classes=["dogs", "cats"]).fingerprint}
    (alone / "cats/000.png").rename(alone / "cats/zzz.png")
    prints.add(load(alone).fingerprint)
    shutil.copy(alone / "cats/001.png", alone / "cats/zzz.png")
    prints.add(load(alone).fingerprint)
    assert len(prints) == 4


def test_given_splits_are_kept(tmp_path: Path) -> None:
    files = pictures({**PARTED, "val/cats": 2, "val/dogs": 2})
    splits = load(write(tmp_path / "x", files), val_fraction=0.5)
    assert [counts(part) for part in (splits.train, splits.val, splits.test)] == [[8, 12], [2, 2], [4, 3]]
    assert "not val_fraction=0.5" in splits.notes[-1]


def test_explicit_fractions_are_exact(tmp_path: Path) -> None:
    splits = load(write(tmp_path / "x", pictures({"a": 40, "b": 60})), test_fraction=0.1, val_fraction=0.3)
    assert counts(splits.test) == [4, 6]
    assert counts(splits.val) == [11, 16]  # 27 of 36 + 54: 10.8 and 16.2
    fewer = load(tmp_path / "x", test_fraction=0.1, val_fraction=0.3, label_fraction=0.5)
    assert len(fewer.train) == 32 and set(fewer.train.names) < set(splits.train.names)
    assert fewer.val.names == splits.val.names


def test_automatic_validation_is_noted(tmp_path: Path) -> None:
    splits = load(write(tmp_path / "x", pictures({**PARTED, "train/cats": 5, "train/dogs": 20})))
    assert counts(splits.val) == [1, 4]
    assert splits.notes[-1] == "validation: 5 of 25 training images (20 %), standard error up to 22.4 points"


def test_batches_and_items_agree(alone: Path) -> None:
    for size in (8, 96):
        splits = load(alone, size)
        x, y = everything(splits.val)
        assert x.shape == (len(splits.val), 3, size, size) and x.dtype == torch.float32 and y.dtype == torch.int64
        assert x.min() >= 0 and x.max() <= 1 and x.max() > 0.9
        items = [splits.val[i] for i in range(len(splits.val))]
        assert torch.equal(torch.stack([image for image, _ in items]), x)
        assert [label for _, label in items] == y.tolist() == splits.val.labels.tolist()
        batches = list(loader(splits.val, 3))
        assert torch.equal(torch.cat([x for x, _ in batches]), x)


@pytest.mark.parametrize("size", [8, 96])
def test_augmentation_follows_the_global_generator(alone: Path, size: int) -> None:
    train = load(alone, size).train
    torch.manual_seed(0)
    first, second = train.__getitems__([0, 1, 2]), train.__getitems__([0, 1, 2])
    assert not torch.equal(first[0], second[0])
    torch.manual_seed(0)
    assert torch.equal(train.__getitems__([0, 1, 2])[0], first[0])
    still = train.with_augmentation(False)
    assert still.pixels is train.pixels and torch.equal(still[0][0], still[0][0])
    plain = load(alone, size, augmentation="none").train
    assert torch.equal(plain[0][0], still[0][0])


def test_shuffling_follows_its_generator(alone: Path) -> None:
    train = load(alone, augmentation="none").train
    orders = [
        torch.cat([y for _, y in loader(train, 4, True, generator=torch.Generator().manual_seed(s))]).tolist()
        for s in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sum(len(y) for _, y in loader(train, 4, drop_last=True)) == len(train) // 4 * 4


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_from_archives(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autolora.data.pixels.PhotoPixels.put", lambda self, row, pixels: None)  # nothing fits
    splits = load(pack_zip(tmp_path / "x.zip", pictures(PARTED)), 96)
    batches = loader(splits.test, 2, num_workers=2)
    batches.multiprocessing_context = method
    assert torch.equal(torch.cat([x for x, _ in batches]), everything(splits.test)[0])


def test_digits() -> None:
    splits = load("digits", 32)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (1150, 288, 359)
    assert splits.classes == tuple("0123456789") and splits.train.augmentation == "crop"
    x, _ = everything(splits.test)
    assert x.shape == (359, 3, 32, 32) and torch.equal(x[:, 0], x[:, 2]) and x.min() == 0 and x.max() == 1


def test_a_named_set_is_not_shadowed_by_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "digits", pictures(ALONE))
    write(tmp_path / "cub", pictures(ALONE))
    monkeypatch.chdir(tmp_path)
    assert len(load("digits").classes) == 10
    assert load("./digits").classes == load(Path("digits")).classes == ("cats", "dogs")
    with pytest.raises(InputError, match=r"cub is not in .*what lies here under that name is \./cub"):
        load("cub", data_root=tmp_path / "nowhere")


def test_bad_images_are_refused_by_name_or_skipped_and_listed(alone: Path) -> None:
    (alone / "cats/bad.png").write_bytes(b"bad")
    with pytest.raises(InputError, match=r"cats/bad\.png cannot be read .*--skip-bad-images"):
        load(alone)
    (alone / "dogs/000.png").write_bytes((alone / "dogs/000.png").read_bytes()[:100])
    (alone / "dogs/lost.png").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"3 of 34 images are bad; the first: .*cats/bad\.png"):
        load(alone)
    splits = load(alone, skip_bad_images=True)
    assert len(splits.train) + len(splits.val) + len(splits.test) == 31
    note = next(note for note in splits.notes if note.startswith("skipped 3 of 34"))
    assert all(name in note for name in ("cats/bad.png", "dogs/000.png", "dogs/lost.png"))
    for name in os.listdir(alone / "cats"):
        (alone / "cats" / name).write_bytes(b"bad")
    with pytest.raises(InputError, match="no image of class 'cats'"):
        load(alone, skip_bad_images=True)


def test_the_record_says_which_image_is_where(alone: Path) -> None:
    splits = load(alone, seed=3, label_fraction=0.5)
    record = json.loads(json.dumps(splits.record()))
    every = sorted(path.relative_to(alone).as_posix() for path in alone.rglob("*.png"))  # classes, then paths
    for part in ("train", "val", "test"):
        assert [every[index] for index in record[part]] == keys(getattr(splits, part))
    assert record["fingerprint"] == splits.fingerprint
    assert (
        load(alone, seed=3, label_fraction=0.5).record() == record != load(alone, seed=4, label_fraction=0.5).record()
    )


def test_a_skipped_image_keeps_its_number(alone: Path) -> None:
    (alone / "cats/003.png").write_bytes(b"bad")
    record = load(alone, skip_bad_images=True).record()
    assert sorted(record["train"] + record["val"] + record["test"]) == [i for i in range(32) if i != 3]


def test_photos_for_a_model_of_small_images_are_shrunk_with_a_note(alone: Path) -> None:
    for path in (alone / "dogs").glob("*.png"):  # 20 of 32
        with Image.open(path) as image:
            larger = image.resize((60, 40))
        larger.save(path)
    (note,) = [note for note in load(alone, 8).notes if "shrunk" in note]
    assert note.startswith("images are shrunk to 8x8, and half of them have a shorter side of 40 pixels or more")
    assert not any("shrunk" in note for note in load(alone, 16).notes)


def test_small_images_are_enlarged_with_a_note(alone: Path) -> None:
    assert "32 of 32 images are smaller than 16 pixels and were enlarged" in load(alone, 16).notes


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (
            "nowhere",
            {},
            r"nowhere does not exist.*named set \(digits, cifar10, .*torchvision:NAME, hf:ORG/NAME, wds:PATH",
        ),
        ("cub", {"data_root": "/nowhere"}, r"cub is not in /nowhere; .*get CUB_200_2011\.tgz .*https://"),
        ("digits", {"image_size": 7}, "image_size=7"),
        ("digits", {"val_fraction": 0.0}, "val_fraction=0"),
        ("digits", {"val_fraction": 1.5}, "val_fraction=1.5"),
        ("digits", {"test_fraction": 1}, "test_fraction=1"),
        ("digits", {"label_fraction": 0}, "label_fraction=0"),
        ("digits", {"classes": ["1"]}, "one class only"),
        ("digits", {"classes": ["1", "x"]}, "no class 'x'"),
        ("digits", {"val_fraction": 0.001}, "val_fraction=0.001 leaves class .* without a validation image"),
        ("digits", {"val_fraction": 0.9999}, "without a training image"),
        ("digits", {"test_fraction": 0.999}, "test_fraction=0.999 leaves"),
    ],
)
def test_bad_requests_get_one_clear_line(data: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load(data, **options)
    assert "\n" not in str(error.value)


def test_nothing_is_written_beside_the_data(tmp_path: Path) -> None:
    places = [write(tmp_path / "f", pictures(PARTED)), pack_tar(tmp_path / "x.tgz", pictures(PARTED), "gz")]
    before = sorted(tmp_path.rglob("*"))
    for place in places:
        load(place)
    assert sorted(tmp_path.rglob("*")) == before


def test_ants_and_bees() -> None:
    archive = SHARED / "ants_bees.zip"
    if not archive.exists():
        pytest.skip("the shared photos are not here")
    splits = load(archive, 96)
    assert splits.classes == ("ants", "bees") and len(splits.test) == 153
    assert len(splits.train) + len(splits.val) == 245 and len(splits.val) == 49
    x, _ = next(iter(loader(splits.train, 16, True)))
    assert x.shape == (16, 3, 96, 96)


# one split alone


@pytest.mark.parametrize("size", [8, 96])
@pytest.mark.parametrize("files", [ALONE, PARTED])
def test_one_split_is_that_of_all(
    files: dict[str, int], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images, labels and fingerprint; only its own images are decoded."""
    folder, decoded = write(tmp_path / "d", pictures(files)), list[bytes]()
    options: dict[str, Any] = {"image_size": size, "seed": 3, "progress": False}
    whole = load_splits(folder, **options)
    assert whole.test_split == ("held out" if files is ALONE else "given")

    def counted(data: bytes) -> Any:
        decoded.append(data)
        return decode(data)

    monkeypatch.setattr("autolora.data.reading.decode", counted)
    for name in ("train", "val", "test"):
        decoded.clear()
        part, expected = load_part(folder, split=name, **options), getattr(whole, name)
        assert (part.images.names, part.classes, part.fingerprint) == (expected.names, whole.classes, whole.fingerprint)
        assert all(torch.equal(a, b) for a, b in zip(everything(part.images), everything(expected), strict=True))
        assert len(decoded) == len(expected)
        assert set(part.notes) >= {note for note in whole.notes if "enlarged" not in note}


def test_test_images_that_are_copies_of_training_images_are_counted(tmp_path: Path) -> None:
    """Byte by byte; copies in the validation split are not trained on."""
    files = {**pictures({**PARTED, "val/cats": 2, "val/dogs": 2})}
    folder = write(tmp_path / "d", files)
    assert not any("copies of" in note or "copy of" in note for note in load(folder).notes)
    shutil.copyfile(folder / "train/cats/000.png", folder / "test/dogs/002.png")
    shutil.copyfile(folder / "val/cats/000.png", folder / "test/cats/000.png")
    assert "1 test image is a copy of a training image; `autolora doctor` names it" in load(folder).notes
    shutil.copyfile(folder / "train/cats/000.png", folder / "test/cats/001.png")
    said = "2 test images are copies of training images; `autolora doctor` names them"
    assert said in load(folder).notes
    assert said in load_part(folder, split="val", image_size=8, progress=False).notes


def test_a_bad_image_is_found_in_its_own_split_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", pictures(PARTED))
    (folder / "train" / "cats" / "000.png").write_bytes(b"no image")
    assert len(load_part(folder, split="test", image_size=8, progress=False).images) == 7
    (folder / "test" / "cats" / "001.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"test/cats/001\.png"):
        load_part(folder, split="test", image_size=8, progress=False)
    left = load_part(folder, split="test", image_size=8, skip_bad_images=True, progress=False)
    whole = load_splits(folder, image_size=8, skip_bad_images=True, progress=False)
    assert (left.images.names, left.fingerprint) == (whole.test.names, whole.fingerprint) and len(left.images) == 6
