"""Downloads: from a server of our own in place of the official one."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from torchvision import datasets

from autolora.data import download, load_splits
from autolora.data.named import NAMED_SETS
from autolora.errors import InputError

from . import layouts
from .layouts import put
from .test_torchvision_sets import mnist
from .trees import write


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    (tmp_path / "www").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "www"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def publish(name: str, site: str, checksum: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``name`` be published there instead."""
    known = NAMED_SETS[name]
    package = replace(known.packages[0], site=site, md5=checksum)
    monkeypatch.setitem(NAMED_SETS, name, replace(known, packages=(package,)))


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_a_set_is_downloaded_and_read_in_place(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = put(tmp_path / "www", layouts.cub(), "CUB_200_2011.tgz") / "CUB_200_2011.tgz"
    publish("cub", f"{server}/", md5(archive), monkeypatch)
    monkeypatch.setenv("AUTOLORA_DATA", str(tmp_path / "root"))
    assert download("cub") == tmp_path / "root"
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["CUB_200_2011.tgz"]  # not unpacked, nothing else
    assert len(load_splits("cub", image_size=8, progress=False).test) == 6
    archive.unlink()
    download("cub")  # it is there


@pytest.mark.parametrize("mistake", ["checksum", "absent", "cut off"])
def test_nothing_is_left_of_a_failed_download(
    mistake: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = put(tmp_path / "www", layouts.cub(), "CUB_200_2011.tgz") / "CUB_200_2011.tgz"
    publish("cub", f"{server}/", md5(archive), monkeypatch)
    if mistake == "absent":
        archive.unlink()
    else:
        data = archive.read_bytes()
        archive.write_bytes(data[:-9] if mistake == "cut off" else data + b"x")
    with pytest.raises(InputError, match=f"could not be downloaded to {tmp_path}/root") as error:
        download("cub", tmp_path / "root")
    assert not list((tmp_path / "root").iterdir()) and "\n" not in str(error.value)


def test_the_checksums_are_those_of_torchvision() -> None:
    packages = {name: known.packages[0] for name, known in NAMED_SETS.items() if known.packages}
    theirs = {
        "cifar10": (datasets.CIFAR10.url, datasets.CIFAR10.tgz_md5),
        "cifar100": (datasets.CIFAR100.url, datasets.CIFAR100.tgz_md5),
        "stl10": (datasets.STL10.url, datasets.STL10.tgz_md5),
        "dtd": (datasets.DTD._URL, datasets.DTD._MD5),
    }
    assert {name: (packages[name].address, packages[name].md5) for name in theirs} == theirs


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dogs", r"dogs is not in .*get images\.tar \(757 MiB\)"),  # no checksum is published
        ("digits", "digits needs no download"),
        ("photos", "photos is no named data set; what can be downloaded is cifar10, cifar100, "),
        ("torchvision:FGVCAircraft", "without a checksum"),
        ("torchvision:Nothing", "is not one of torchvision's data sets"),
    ],
)
def test_what_cannot_be_downloaded_is_told(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        download(name, tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_torchvision_downloads_its_own(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    files = {Path(path).name + ".gz": gzip.compress(data) for path, data in mnist("MNIST").items()}
    write(tmp_path / "www", files)
    resources = [(name, hashlib.md5(data).hexdigest()) for name, data in files.items()]
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{server}/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    download("torchvision:MNIST", tmp_path / "root")
    assert len(load_splits("torchvision:MNIST", image_size=8, data_root=tmp_path / "root", progress=False).test) == 10
    monkeypatch.setattr(datasets.MNIST, "resources", [(name, "0" * 32) for name, _ in resources])
    with pytest.raises(InputError, match="torchvision:MNIST could not be downloaded") as error:
        download("torchvision:MNIST", tmp_path / "other")
    assert "\n" not in str(error.value)
