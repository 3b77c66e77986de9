"""Images and archives of images: damaged, enormous when they are unpacked, or named to end up elsewhere."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping

from hostile_cases import JUDGE, QUICKLY, Case, Material
from hostile_values import damaged
from hypothesis import strategies as st

NAMES = ("x.png", "x.jpg", "x.tif", "x.webp", "<img src=x onerror=alert(1)>.png", "a\nb.png", "x.gif", "é.bmp")


def images(material: Material) -> st.SearchStrategy[Case]:
    content = st.sampled_from(material.images).flatmap(damaged) | st.sampled_from(material.images)
    odd = [_image_bomb(), b"%!PS-Adobe-3.0 EPSF-3.0\n(x) run\n", b"<svg onload=alert(1)>", b""]
    image = content | content | st.sampled_from(odd) | st.binary(max_size=99)
    others = [f"more/{path.relative_to(material.photos).as_posix()}" for path in sorted(material.photos.rglob("*.png"))]
    whole = {name: material.images[0] for name in others[:-1]}

    def case(data: bytes, called: str, skip: bool) -> Case:
        argv = ("evaluate", "run", "--data", "more", *JUDGE)
        if skip:
            argv = ("fit", "more", "--skip-bad-images", *QUICKLY)
        return Case(
            "images", argv, {**whole, f"more/test/red/{called}": data, f"more/train/red/{called}": data}, run=True
        )

    return st.builds(case, image, st.sampled_from(NAMES), st.integers(0, 3).map(lambda n: n == 0))


def _image_bomb() -> bytes:
    """A PNG of a few bytes that says it has 10^10 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


ESCAPES = (
    "../../escaped.png",
    "/tmp/escaped.png",
    "train/../../../escaped.png",
    "C:\\escaped.png",
    "train/red/\x1b[2J.png",
)


def archives(material: Material) -> st.SearchStrategy[Case]:
    files = {
        path.relative_to(material.photos).as_posix(): path.read_bytes()
        for path in sorted(material.photos.rglob("*.png"))
    }

    @st.composite
    def archive(draw: st.DrawFn) -> Case:
        kind = draw(st.sampled_from(["zip", "tar", "tgz"]))
        extra = draw(st.lists(st.sampled_from(ESCAPES), max_size=2, unique=True))
        members = files | {name: files["train/red/00.png"] for name in extra}
        special = draw(st.sampled_from(["nothing", "symlink", "hardlink", "device", "fifo", "bomb"]))
        data = _zip(members, special) if kind == "zip" else _tar(members, special, kind)
        if draw(st.booleans()):
            data = draw(damaged(data))
        argv = ("evaluate", "run", "--data", f"a.{kind}", *JUDGE)
        return Case("archives", argv, {f"a.{kind}": data}, run=True)

    return archive()


def _zip(members: Mapping[str, bytes], special: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        if special == "bomb":
            archive.writestr("train/red/bomb.png", bytes(50_000_000))
        elif special != "nothing":
            link = zipfile.ZipInfo("train/red/link.png")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "../../../../../etc/passwd")
    return stream.getvalue()


def _tar(members: Mapping[str, bytes], special: str, kind: str) -> bytes:
    stream = io.BytesIO()
    types = {
        "symlink": tarfile.SYMTYPE,
        "hardlink": tarfile.LNKTYPE,
        "device": tarfile.CHRTYPE,
        "fifo": tarfile.FIFOTYPE,
    }
    with tarfile.open(fileobj=stream, mode="w:gz" if kind == "tgz" else "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        if special in types:
            member = tarfile.TarInfo("train/red/link.png")
            member.type, member.linkname = types[special], "../../../../../etc/passwd"
            tar.addfile(member)
        elif special == "bomb":
            member = tarfile.TarInfo("train/red/bomb.png")
            member.size = 20_000_000
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return stream.getvalue()
