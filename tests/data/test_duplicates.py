"""Planted copies are found with both their names; images that are merely alike are not."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from autolora.data import Splits, load_splits
from autolora.data import duplicates as module
from autolora.data.duplicates import Duplicates, Twin, find_duplicates
from autolora.data.outlines import outlines

from .trees import encoded, pack_zip

SIZE = 32


def scene(seed: int) -> Image.Image:
    """A photograph of sorts: smooth ground, a few objects with edges, a little noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    ground = np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float64)
    for _ in range(8):
        top, left = rng.integers(0, SIZE - 6, 2)
        height, width = rng.integers(3, 14, 2)
        ground[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return Image.fromarray(np.clip(ground + rng.normal(0, 4, ground.shape), 0, 255).astype(np.uint8))


def files(counts: Mapping[str, int], start: int = 0) -> dict[str, bytes]:
    paths = [f"{folder}/{i}.png" for folder, count in counts.items() for i in range(count)]
    return {path: encoded(scene(start + seed)) for seed, path in enumerate(paths)}


def plain() -> dict[str, bytes]:
    """20 training, 6 validation and 8 test images in two classes, all different."""
    return files({"train/a": 10, "train/b": 10, "val/a": 3, "val/b": 3, "test/a": 4, "test/b": 4})


def load(path: Path, contents: Mapping[str, bytes]) -> Splits:
    return load_splits(pack_zip(path / "data.zip", contents), image_size=SIZE, progress=False)


def found(path: Path, contents: Mapping[str, bytes]) -> Duplicates:
    return find_duplicates(load(path, contents))


def names(twin: Twin) -> tuple[str, str]:
    return twin.name.partition(":")[2], twin.other_name.partition(":")[2]


def test_different_images_have_no_twins(tmp_path: Path) -> None:
    result = found(tmp_path, plain())
    assert (result.leaks, result.conflicts, result.blank, result.repeats) == ((), (), (), 0)
    assert result.told_apart and result.alikeness < 0.5


@pytest.mark.parametrize(
    ("copy", "original", "splits"),
    [
        ("test/b/2.png", "train/b/7.png", ("test", "train")),
        ("test/b/2.png", "val/b/1.png", ("test", "val")),
        ("val/a/0.png", "train/a/9.png", ("val", "train")),
    ],
)
def test_an_exact_copy_in_another_split(tmp_path: Path, copy: str, original: str, splits: tuple[str, str]) -> None:
    contents = plain()
    # the same pixels in another file: the file's own hash would not do
    contents[copy] = encoded(Image.open(io.BytesIO(contents[original])), compress_level=0)
    assert contents[copy] != contents[original]
    result = found(tmp_path, contents)
    (twin,) = result.leaks
    assert names(twin) == (copy, original) and (twin.split, twin.other_split) == splits
    assert twin.exact and twin.likeness == 1.0 and result.conflicts == ()


ALTERATIONS: dict[str, Callable[[Image.Image], bytes]] = {
    "compressed": lambda image: encoded(image, "JPEG", quality=60),
    "brighter": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.2)),
    "fainter": lambda image: encoded(ImageEnhance.Contrast(image).enhance(0.6)),
    "grey": lambda image: encoded(image.convert("L")),
    "enlarged": lambda image: encoded(image.resize((100, 100), Image.Resampling.BICUBIC)),
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_an_altered_copy(tmp_path: Path, alteration: str) -> None:
    contents = plain()
    contents["test/a/1.png"] = ALTERATIONS[alteration](Image.open(io.BytesIO(contents["train/a/4.png"])))
    (twin,) = found(tmp_path, contents).leaks
    assert names(twin) == ("test/a/1.png", "train/a/4.png")
    assert not twin.exact and 0.9 <= twin.likeness <= 1


def test_a_picture_under_two_labels(tmp_path: Path) -> None:
    contents = plain()
    contents["train/b/3.png"] = contents["train/a/2.png"]
    contents["train/b/5.png"] = ALTERATIONS["compressed"](Image.open(io.BytesIO(contents["train/a/6.png"])))
    result = found(tmp_path, contents)
    assert result.leaks == ()
    assert [names(twin) for twin in result.conflicts] == [
        ("train/a/2.png", "train/b/3.png"),
        ("train/a/6.png", "train/b/5.png"),
    ]
    assert [twin.exact for twin in result.conflicts] == [True, False]
    assert {(twin.label, twin.other_label) for twin in result.conflicts} == {(0, 1)}


def test_copies_within_a_class_of_the_training_images_are_only_counted(tmp_path: Path) -> None:
    contents = plain()
    contents["train/a/1.png"] = contents["train/a/2.png"] = contents["train/a/3.png"]
    result = found(tmp_path, contents)
    assert (result.leaks, result.conflicts, result.repeats) == ((), (), 2)


def test_of_many_copies_each_held_out_image_is_reported_once(tmp_path: Path) -> None:
    contents = plain()
    for copy in ("test/a/0.png", "test/a/1.png", "train/a/0.png", "train/a/1.png", "train/b/0.png"):
        contents[copy] = contents["val/a/2.png"]
    result = found(tmp_path, contents)
    assert sorted(names(twin)[0] for twin in result.leaks) == ["test/a/0.png", "test/a/1.png", "val/a/2.png"]
    assert all(twin.exact for twin in result.leaks)
    assert {twin.other_name.partition(":")[2] for twin in result.conflicts} == {"train/b/0.png"}
    assert len(result.conflicts) == 5


def test_blank_images_are_named_and_are_no_near_copies_of_each_other(tmp_path: Path) -> None:
    contents = plain()
    rng = np.random.default_rng(0)
    for path, level in (("train/a/0.png", 40), ("train/b/0.png", 90), ("test/a/0.png", 200)):
        contents[path] = encoded(Image.fromarray(rng.integers(level, level + 3, (SIZE, SIZE, 3), dtype=np.uint8)))
    result = found(tmp_path, contents)
    assert {name.partition(":")[2] for name in result.blank} == {"train/a/0.png", "train/b/0.png", "test/a/0.png"}
    assert (result.leaks, result.conflicts) == ((), ())


def test_a_common_frame_or_a_common_ground_makes_no_twins() -> None:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    images = []
    for seed in range(24):
        image = np.array(scene(seed), dtype=np.float64)
        if seed % 2:
            image[:4] = image[-4:] = image[:, :4] = image[:, -4:] = 255  # a white frame
        else:
            image = 0.15 * image + 0.85 * (3 * rows + 4 * columns)[:, :, None]  # a strong gradient over all of it
        images.append(torch.from_numpy(image.astype(np.uint8)).permute(2, 0, 1))
    vectors = outlines(torch.stack(images))
    likeness = (vectors @ vectors.T).fill_diagonal_(0)
    assert float(likeness.max()) < 0.75


def test_where_all_images_are_alike_only_exact_copies_are_told(tmp_path: Path) -> None:
    """Frames of one video: likeness says nothing, and nothing is guessed."""
    rng = np.random.default_rng(0)
    frame = np.asarray(scene(0), dtype=np.float64)
    contents = {
        path: encoded(Image.fromarray(np.clip(frame + rng.normal(0, 6, frame.shape), 0, 255).astype(np.uint8)))
        for path in plain()
    }
    result = found(tmp_path, contents)
    assert not result.told_apart and result.alikeness > 0.9 and result.leaks == ()
    contents["test/a/0.png"] = contents["train/a/0.png"]
    (twin,) = found(tmp_path, contents).leaks
    assert twin.exact


@pytest.mark.parametrize("rows", [1, 3, 30])
def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    contents = plain()
    contents["test/a/1.png"] = ALTERATIONS["compressed"](Image.open(io.BytesIO(contents["train/a/4.png"])))
    contents["train/b/9.png"] = ALTERATIONS["fainter"](Image.open(io.BytesIO(contents["val/a/2.png"])))
    contents["test/b/0.png"] = ALTERATIONS["grey"](Image.open(io.BytesIO(contents["test/a/3.png"])))  # neighbours
    splits = load(tmp_path, contents)
    whole = find_duplicates(splits)
    assert len(whole.leaks) == 2 and len(whole.conflicts) == 2
    monkeypatch.setattr(module, "PRODUCTS", rows * len(contents))
    monkeypatch.setattr(module, "READ", 3)
    blocks = find_duplicates(splits)
    assert blocks.alikeness == pytest.approx(whole.alikeness)
    assert replace(blocks, alikeness=whole.alikeness) == whole


def test_every_pair_that_a_plain_double_loop_finds(tmp_path: Path) -> None:
    contents = plain()
    generator = np.random.default_rng(1)
    paths = sorted(contents)
    for _ in range(12):
        copy, original = generator.choice(len(paths), 2, replace=False)
        contents[paths[copy]] = ALTERATIONS["compressed"](Image.open(io.BytesIO(contents[paths[original]])))
    splits = load(tmp_path, contents)
    result = find_duplicates(splits)
    sets = [splits.test, splits.val, splits.train]
    pixels = torch.cat([part.pixels.centre_crops(part.rows) for part in sets])
    labels: Tensor = torch.cat([part.labels for part in sets])
    of = [number for number, part in enumerate(sets) for _ in range(len(part))]
    vectors = outlines(pixels)
    expected_leaks, expected_conflicts = set(), set()
    for i in range(len(pixels)):
        for j in range(i + 1, len(pixels)):
            if float(vectors[i] @ vectors[j]) >= 0.9:
                expected_leaks |= {i} if of[i] != of[j] else set()
                expected_conflicts |= {i} if labels[i] != labels[j] else set()
    assert len(expected_leaks) > 2 and len(expected_conflicts) > 2
    names_of = [name for part in sets for name in part.names]
    assert {twin.name for twin in result.leaks} == {names_of[i] for i in expected_leaks}
    assert {twin.name for twin in result.conflicts} == {names_of[i] for i in expected_conflicts}
