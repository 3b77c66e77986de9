"""Bytes that are anything, as images and as archives: an `InputError` in one line at most, and never anything else."""

from __future__ import annotations

import io
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from autolora.data import load_splits
from autolora.data.archives import list_archive
from autolora.data.decoding import FORMATS, read_rgb
from autolora.data.sources import BytesSource, UnreadableImage
from autolora.errors import InputError

from . import layouts
from .trees import encoded, pack_tar, pack_zip, pictures, write

SEEDS = {kind: encoded(Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)), kind) for kind in FORMATS}
FILES = pictures({"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1}, 8)

QUICK = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """``whole`` with bytes changed, cut out, doubled, or cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 16))
        action = draw(st.sampled_from(["set", "remove", "double", "cut"]))
        if action == "set":
            data[place : place + length] = draw(st.binary(min_size=1, max_size=length))
        elif action == "remove":
            del data[place : place + length]
        elif action == "double":
            data[place:place] = data[place : place + length]
        else:
            del data[place:]
    return bytes(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SEEDS)).flatmap(lambda kind: damaged(SEEDS[kind])) | st.binary(max_size=300))
def test_image_bytes(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_rgb(BytesSource("x.png", data))
        except UnreadableImage as error:
            assert "\n" not in str(error) and str(error).startswith("x.png cannot be read")
        else:
            assert image.mode == "RGB"


def packed(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in FILES.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz" if kind == "tgz" else "w") as tar:
            for name, data in FILES.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


ARCHIVES = {kind: packed(kind) for kind in ("zip", "tar", "tgz")}


@QUICK
@given(data=st.sampled_from(sorted(ARCHIVES)).flatmap(lambda kind: damaged(ARCHIVES[kind])) | st.binary(max_size=600))
@example(data=b"PK\x03\x04" + bytes(60))
@example(data=b"\x1f\x8b\x08" + bytes(60))
@example(data=bytes(1024))
def test_archives(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    try:
        load_splits(path, image_size=8, progress=False, skip_bad_images=True)
    except InputError as error:
        assert "\n" not in str(error)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.zip"]


names = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
    | st.sampled_from(["..", ".", "/", "\\", "C:", "a\nb", "\x1b[2J", "train", "test", "a.png", "\u202e", "con", " "]),
    min_size=1,
    max_size=5,
).map("/".join)


@QUICK
@given(members=st.lists(names, min_size=1, max_size=8, unique=True), name=st.sampled_from(["x.zip", "x.tar"]))
def test_member_names(members: list[str], name: str, tmp_path: Path) -> None:
    files = dict.fromkeys(members, b"bad") | FILES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of doubled names
        archive = (pack_zip if name == "x.zip" else pack_tar)(tmp_path / name, files)
    try:
        splits = load_splits(archive, image_size=8, progress=False)
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert all(note.isprintable() for note in splits.notes)
    listed = list_archive(archive)
    assert len(listed.files) <= len(files) and all("/" not in part for file in listed.files for part in file.parts)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"x.zip", "x.tar"}


@pytest.mark.parametrize("bad", ["a\nb.png", "\x1b[31m.png", "\u2028.png", "x\udcff.png"])
@pytest.mark.parametrize("where", ["folder", "x.tar"])
def test_an_odd_file_name_is_shown_in_one_line(bad: str, where: str, tmp_path: Path) -> None:
    files = FILES | {f"train/a/{bad}": b"bad"}
    place = write(tmp_path / "folder", files) if where == "folder" else pack_tar(tmp_path / where, files)
    with pytest.raises(InputError, match="cannot be read as an image") as error:
        load_splits(place, image_size=8, progress=False)
    assert str(error.value).isprintable()
    str(error.value).encode()
    splits = load_splits(place, image_size=8, progress=False, skip_bad_images=True)
    assert all(note.isprintable() for note in splits.notes) and len(splits.fingerprint) == 64


DOG_IMAGES, DOG_LISTS = layouts.dogs()
OFFICIAL: dict[str, dict[str, bytes]] = {
    "cub": layouts.cub(),
    "dtd": layouts.dtd(),
    "dogs": DOG_IMAGES | {name: DOG_LISTS[name] for name in ("train_list.mat", "test_list.mat")},
}


@settings(QUICK, max_examples=60)
@given(data=st.data())
def test_official_archives_with_a_damaged_file(data: st.DataObject, tmp_path: Path) -> None:
    name = data.draw(st.sampled_from(sorted(OFFICIAL)))
    files = OFFICIAL[name]
    if not (tmp_path / name).exists():
        write(tmp_path / name, files)
    file = data.draw(st.sampled_from(sorted(path for path in files if path.endswith((".txt", ".mat")))))
    write(tmp_path / name, {file: data.draw(damaged(files[file]))})
    try:
        load_splits(name, image_size=8, data_root=tmp_path, progress=False)
    except InputError as error:
        assert "\n" not in str(error)
    finally:
        write(tmp_path / name, {file: files[file]})


@settings(QUICK, max_examples=60)
@given(text=damaged(b"path,label,split\n" + b"".join(f"{path},{path[-9]},train\n".encode() for path in FILES)))
def test_damaged_tables(text: bytes, tmp_path: Path) -> None:
    write(tmp_path, FILES | {"t.csv": text})
    try:
        load_splits(tmp_path / "t.csv", image_size=8, progress=False)
    except InputError as error:
        assert "\n" not in str(error)


@settings(QUICK, max_examples=60)
@given(data=st.data())
def test_damaged_shards(data: st.DataObject, tmp_path: Path) -> None:
    image = FILES["train/a/000.png"]
    files = {f"{i}.png": image for i in range(8)} | {f"{i}.cls": b"%d" % (i % 2) for i in range(8)}
    whole = pack_tar(tmp_path / "whole.tar", files).read_bytes()
    (tmp_path / "x.tar").write_bytes(data.draw(damaged(whole)))
    try:
        load_splits(f"wds:{tmp_path}/x.tar", image_size=8, progress=False)
    except InputError as error:
        assert "\n" not in str(error)
