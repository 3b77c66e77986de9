"""WebDataset shards."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from autolora.data import Splits, load_splits
from autolora.data.webdataset import braces
from autolora.errors import InputError

from .layouts import Files
from .trees import pack_tar, picture

NAMES = ("cat", "dog")


def samples(first: int, count: int, label: str = "cls") -> Files:
    """Samples of alternating classes; what `label` says, and a file beside that is neither image nor class."""
    files: Files = {}
    for i in range(first, first + count):
        files[f"{i:06d}.png"] = picture(i)
        if label == "json":
            files[f"{i:06d}.json"] = json.dumps({"label": NAMES[i % 2], "size": [10, 10]}).encode()
        else:
            files[f"{i:06d}.cls"] = (str(i % 2) if label == "cls" else NAMES[i % 2] + "\n").encode()
        files[f"{i:06d}.meta.txt"] = b"anything"
    return files


def load(data: str, root: Path | None = None) -> Splits:
    return load_splits(f"wds:{data}", image_size=8, data_root=root, progress=False)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for i in range(3):
        pack_tar(tmp_path / f"train-{i:03d}.tar", samples(10 * i, 10))
    pack_tar(tmp_path / "test-000.tar", samples(100, 6))
    return tmp_path


def test_a_pattern_of_shards_without_a_split(tmp_path: Path) -> None:
    for i in range(12):
        pack_tar(tmp_path / f"s{i:02d}.tar", samples(0, 4))  # keys that begin anew in every shard are usual
    splits = load(f"{tmp_path}/s{{00..11}}.tar")
    assert splits.classes == ("0", "1")
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 48
    assert len(load(f"{tmp_path}/s{{00..02}}.tar::{tmp_path}/s{{05,07}}.tar").test) == 4


def test_shards_say_what_they_are_for(shards: Path) -> None:
    for data in (str(shards), f"{shards}/train-{{000..002}}.tar::{shards}/test-000.tar"):
        splits = load(data)
        assert (len(splits.train) + len(splits.val), len(splits.test)) == (30, 6)
        assert splits.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
        keys = [int(name.rsplit("/")[-1][-10:-4]) for name in splits.test.names]
        assert keys == [100, 102, 104, 101, 103, 105]
    (shards / "val").mkdir()
    pack_tar(shards / "val" / "0.tar", samples(200, 4))
    assert len(load(str(shards)).val) == 4


@pytest.mark.parametrize("label", ["txt-in-cls", "json"])
def test_classes_may_have_names(label: str, tmp_path: Path) -> None:
    pack_tar(tmp_path / "a.tar", samples(0, 20, label))
    splits = load(f"{tmp_path}/a.tar")
    assert splits.classes == NAMES
    assert all(int(name[-10:-4]) % 2 == y for name, y in zip(splits.train.names, splits.train.labels, strict=True))


def test_numbers_are_in_the_order_of_their_values(tmp_path: Path) -> None:
    files = {
        f"{i:03d}.{kind}": data for i in range(36) for kind, data in (("png", picture(i)), ("cls", b"%d" % (i % 12)))
    }
    pack_tar(tmp_path / "a.tar", files)
    assert load(f"{tmp_path}/a.tar").classes == tuple(map(str, range(12)))


def test_patterns() -> None:
    assert braces("a{08..11}b") == ["a08b", "a09b", "a10b", "a11b"]
    assert braces("{train,test}-{0..1}") == ["train-0", "train-1", "test-0", "test-1"]
    for bad in ("{5..1}", "{0..99999999999}", "{0..999}{0..999}"):
        with pytest.raises(InputError, match=r"100,000|ascending"):
            braces(bad)


def changed(**files: bytes) -> Files:
    renamed = {name.replace("__", "."): data for name, data in files.items()}
    return {**samples(0, 20), **{name[1:] if name.startswith("k") else name: data for name, data in renamed.items()}}


MISTAKES: dict[str, tuple[Files, str]] = {
    "no class": ({**samples(0, 20), "77.png": picture(1)}, r"a\.tar: the sample 77 has no class .*put it into 77\.cls"),
    "empty class": (changed(k000003__cls=b" "), "the class of the sample 000003 is empty"),
    "binary class": (changed(k000003__cls=b"\xff\xfe"), "the sample 000003 has no class"),
    "control characters": (changed(k000003__cls=b"a\x1b[2Jb"), "the class of the sample 000003 is empty or no text"),
    "endless class": (changed(k000003__cls=b"9" * 100_000), "the sample 000003 has no class .*too long"),
    "two images": (changed(k000003__jpg=picture(1)), "the sample 000003 has the images jpg and png|png and jpg"),
    "no images": ({"a.cls": b"1"}, "holds no samples with an image"),
    "label is a list": ({"a.png": picture(0), "a.json": b'{"label": [1]}'}, "the class of the sample a is empty"),
    "deep json": ({"a.png": picture(0), "a.json": b"[" * 50_000}, "the sample a has no class"),
    "bad image": (changed(k000003__png=b"GIF"), r"000003\.png cannot be read as an image"),
    "one class": ({f"{i}.{k}": d for i in range(9) for k, d in (("png", picture(i)), ("cls", b"4"))}, "one class only"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_shard_is_named(mistake: str, tmp_path: Path) -> None:
    files, message = MISTAKES[mistake]
    pack_tar(tmp_path / "a.tar", files)
    with pytest.raises(InputError, match=message) as error:
        load(f"{tmp_path}/a.tar")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("pipe:cat {dir}/train-000.tar", "pipe: runs a command"),
        ("s3://bucket/a.tar", "s3:// is not read"),
        ("{dir}/train-{{000..003}}.tar", r"there is no shard .*train-003\.tar"),
        ("{dir}/train-000.tar::{dir}/train-000.tar", "twice"),
        ("{dir}/empty", "has no shards"),
        ("{dir}/other.tar::{dir}/train-000.tar", r"other\.tar does not say which split"),
        ("{dir}/test-000.tar", "has the splits test, and none to train on"),
        ("{dir}/half.tar", "damaged or incomplete"),
    ],
)
def test_a_mistake_in_the_names_is_told(data: str, message: str, shards: Path) -> None:
    (shards / "empty").mkdir()
    pack_tar(shards / "other.tar", samples(0, 4))
    (shards / "half.tar").write_bytes((shards / "other.tar").read_bytes()[:700])
    with pytest.raises(InputError, match=message) as error:
        load(data.format(dir=shards))
    assert "\n" not in str(error.value)


@pytest.fixture
def served(shards: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(shards)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_shards_from_the_web_are_fetched_once(served: str, shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    url = f"{served}/train-{{000..001}}.tar"
    first = load(url, root)
    (shards / "train-000.tar").unlink()
    again = load(url, root)
    assert again.fingerprint == first.fingerprint and again.record() == first.record()
    with pytest.raises(InputError, match=r"train-009\.tar could not be downloaded .*404"):
        load(f"{served}/train-009.tar", root)
    assert not list(root.rglob("*009*"))
