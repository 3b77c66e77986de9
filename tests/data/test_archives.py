import io
import multiprocessing
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autolora.data import sources
from autolora.data.archives import list_archive
from autolora.data.folders import list_folder
from autolora.data.sources import Source
from autolora.errors import InputError

from .trees import pack_tar, pack_zip, write

FILES = {"top/cats/a.png": b"aaa", "top/cats/b.png": b"b" * 5000, "top/dogs/c.png": b""}
PACKERS: dict[str, Callable[[Path], Path]] = {
    "zip": lambda path: pack_zip(path / "x.zip", FILES),
    "tar": lambda path: pack_tar(path / "x.tar", FILES),
    "tar.gz": lambda path: pack_tar(path / "x.tar.gz", FILES, "gz"),
    "tgz-unnamed": lambda path: pack_tar(path / "x.bin", FILES, "gz"),
    "tar.bz2": lambda path: pack_tar(path / "x.tar.bz2", FILES, "bz2"),
    "tar.xz": lambda path: pack_tar(path / "x.tar.xz", FILES, "xz"),
}


def contents(path: Path) -> dict[str, bytes]:
    listing = list_folder(path) if path.is_dir() else list_archive(path)
    return {"/".join(file.parts): file.source.read() for file in listing.files}


@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
def test_every_archive_lists_what_the_folder_lists(packer: Callable[[Path], Path], tmp_path: Path) -> None:
    archive = packer(tmp_path)
    folder = write(tmp_path / "folder", FILES)
    assert contents(archive) == contents(folder) == FILES
    assert list_archive(archive).folders == list_folder(folder).folders
    assert sorted(os.listdir(tmp_path)) == sorted([archive.name, "folder"])  # nothing was unpacked


@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
def test_names_say_where_an_image_lies(packer: Callable[[Path], Path], tmp_path: Path) -> None:
    archive = packer(tmp_path)
    assert list_archive(archive).files[0].source.name == f"{archive}:top/cats/a.png"


def read_lengths(images: list[Source]) -> list[int]:
    return [len(image.read()) for image in images]


@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
def test_sources_read_in_a_forked_process(packer: Callable[[Path], Path], tmp_path: Path) -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    images = [file.source for file in list_archive(packer(tmp_path)).files]
    read_lengths(images)  # the parent has its handles open
    assert in_a_fork(lambda: read_lengths(images)) == read_lengths(images) == [3, 5000, 0]


def in_a_fork(work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a forked process, which is killed whatever becomes of it."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: there.send(work()))
    child.start()
    there.close()  # so that a child that fails ends the pipe
    try:
        assert here.poll(60), "the forked process says nothing"
        return here.recv()
    finally:
        child.kill()
        child.join()


def test_sources_pickle_and_share_their_archive(tmp_path: Path) -> None:
    images = [file.source for file in list_archive(PACKERS["tar.gz"](tmp_path)).files]
    again = pickle.loads(pickle.dumps(images))
    assert [image.read() for image in again] == [image.read() for image in images]
    assert again[0].archive is again[1].archive  # decompressed once per process, not once per image


def test_links(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member = tarfile.TarInfo("a/one.png")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"one"))
        for name, target, kind in (
            ("b/soft.png", "../a/one.png", tarfile.SYMTYPE),
            ("b/hard.png", "a/one.png", tarfile.LNKTYPE),
            ("b/lost.png", "/etc/passwd", tarfile.SYMTYPE),
            ("b/circle.png", "circle.png", tarfile.SYMTYPE),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            tar.addfile(link)
    assert contents(tmp_path / "x.tar") == {"a/one.png": b"one", "b/soft.png": b"one", "b/hard.png": b"one"}

    folder = write(tmp_path / "folder", {"a/one.png": b"one"})
    (folder / "b").symlink_to("a")
    (folder / "a" / "circle").symlink_to(folder)
    assert contents(folder) == {"a/one.png": b"one", "b/one.png": b"one"}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tgz", "x.dat"])
@pytest.mark.parametrize("data", [b"nonsense", b"PK\3\4nonsense", b"\x1f\x8bnonsense", b""])
def test_what_is_no_archive_is_refused_in_one_line(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    advice = "neither a folder nor a zip or tar" if name == "x.dat" else "damaged or incomplete"
    with pytest.raises(InputError, match=advice) as error:
        list_archive(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
def test_a_cut_archive_is_refused(packer: Callable[[Path], Path], tmp_path: Path) -> None:
    archive = packer(tmp_path)
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) * 2 // 5])
    with pytest.raises(InputError):
        list_archive(archive)


def test_a_member_of_absurd_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_IMAGE_BYTES", 1000)
    big = list_archive(PACKERS["zip"](tmp_path)).files[1].source
    with pytest.raises(OSError, match="larger than"):
        big.read()


def test_a_compressed_tar_that_explodes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autolora.data.decompression.BOMB_FLOOR", 2**20)
    archive = pack_tar(tmp_path / "bomb.tgz", {"a/x.png": bytes(5 * 2**20)}, "gz")
    with pytest.raises(InputError, match="100 times"):
        list_archive(archive)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = pack_zip(tmp_path / "x.zip", {"a/x.png": b"x"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1  # the flag in the central directory
    path.write_bytes(data)
    with pytest.raises(InputError, match="encrypted"):
        list_archive(path)


def test_wrong_checksum_is_noticed_when_read(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a/x.png", b"hello")
    path.write_bytes(path.read_bytes().replace(b"hello", b"hullo"))
    with pytest.raises(zipfile.BadZipFile):
        list_archive(path).files[0].source.read()


def test_a_zip_that_declares_an_explosion_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autolora.data.decompression.BOMB_FLOOR", 2**20)
    harmless = pack_zip(tmp_path / "flat.zip", {"a/x.png": bytes(2**20)})
    assert len(list_archive(harmless).files) == 1  # 1,000 times its size, but not much
    bomb = pack_zip(tmp_path / "bomb.zip", {f"a/{i}.png": bytes(2**20) for i in range(5)})
    with pytest.raises(InputError, match="100 times"):
        list_archive(bomb)


def test_a_zip_gives_no_more_than_it_declares(tmp_path: Path) -> None:
    path = pack_zip(tmp_path / "x.zip", {"a/x.png": bytes(5000)})
    path.write_bytes(path.read_bytes().replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(zipfile.BadZipFile):  # ten bytes, and their checksum is wrong
        list_archive(path).files[0].source.read()


@pytest.mark.parametrize("size", [-512, -1024, -(2**40)])
def test_a_tar_with_a_negative_size_does_not_loop(size: int, tmp_path: Path) -> None:
    path = pack_tar(tmp_path / "x.tar", FILES)
    data = bytearray(path.read_bytes())
    field = b"\xff" + (size % 2**88).to_bytes(11, "big")  # as GNU tar writes numbers that need more room
    data[124:136] = field
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged or incomplete"):
        list_archive(path)


def test_members_that_lead_out_are_never_followed(tmp_path: Path) -> None:
    secret = write(tmp_path, {"secret/a/x.png": b"secret"})
    names = ("../secret/a/x.png", "/etc/passwd", "a/../../secret/a/x.png", f"{secret}/secret/a/x.png", "C:\\a\\x.png")
    for archive in (
        pack_zip(tmp_path / "x.zip", dict.fromkeys(names, b"inside")),
        pack_tar(tmp_path / "x.tar", dict.fromkeys(names, b"inside")),
    ):
        assert set(contents(archive).values()) == {b"inside"}
