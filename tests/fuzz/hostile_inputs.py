"""What a stranger could give the command line: five kinds of input, damaged at random or meant to do harm.

Everything is made from files that are whole (:class:`Material`), so that most of it gets far before it is refused.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st
from safetensors.torch import load, save

KINDS = ("config", "arguments", "images", "archives", "checkpoints", "runs")
CANARY = "canary"  # in the folder above: code that a file brings would write it
TINY = "--model resnet20_cifar --weights none --image-size 12 --epochs 1 --attack pgd-1 --batch-size 10 --rank 2"
QUICKLY = [*TINY.split(), "--device", "cpu", "--workers", "0", "--out", "out", "--quiet"]
JUDGE = ["--attack", "pgd-1", "--limit", "6", "--device", "cpu", "--out", "out", "--quiet"]


@dataclass(frozen=True)
class Case:
    """One input: files in a folder of its own, and the command that is given them there.

    Args:
        kind: One of ``KINDS``.
        argv: The command line.
        files: Contents by name; ``run/NAME`` replaces a file of the finished run that lies there.
        run: Whether the finished run lies there.
        removed: Names of files that do not lie there after all.
    """

    kind: str
    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    run: bool = False
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Material:
    """Whole files to start from.

    Args:
        photos: Folder of the images that the run was trained on.
        run: Folder of a finished run.
        images: Files of images.
        weights: Files of weights, by what they are.
        canary: Where code that is run would write.
    """

    photos: Path
    run: Path
    images: tuple[bytes, ...]
    weights: Mapping[str, bytes]
    canary: Path


class Call:
    """Pickles as a call, which whoever unpickles it carries out."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def cases(kind: str, material: Material) -> st.SearchStrategy[Case]:
    """Return inputs of a kind."""
    made: dict[str, Callable[[Material], st.SearchStrategy[Case]]] = {
        "config": _configs,
        "arguments": _arguments,
        "images": _images,
        "archives": _archives,
        "checkpoints": _checkpoints,
        "runs": _runs,
    }
    return made[kind](material)


# values

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TRICKS = st.sampled_from([
    "../../etc/passwd", "/dev/full", "/proc/self/mem", "~", "$HOME", "`id`", "a\nb", "\x1b[2J", "<script>", "%s%n",
    "x" * 5000, "-1", "0", "1e308", "nan", "inf", "-inf", "9" * 40, "8/0", "1/255", "None", "true", "[]", "{}", "--",
    "!!python/none",
])  # fmt: skip
NUMBERS = st.sampled_from([0, -1, 1, 2, 2**31, 2**63, 10**40, -0.0, 1.5, 1e308, float("inf"), float("nan")])
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS | TRICKS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=5
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """``whole`` with bits flipped, bytes cut out, doubled, or cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        action = draw(st.sampled_from(["flip", "set", "remove", "double", "cut"]))
        length = draw(st.integers(1, 16))
        if action == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif action == "set":
            data[place : place + length] = draw(st.binary(min_size=1, max_size=length))
        elif action == "remove":
            del data[place : place + length]
        elif action == "double":
            data[place:place] = data[place : place + length]
        elif action == "cut":
            del data[place:]
    return bytes(data)


@st.composite
def absurd(draw: st.DrawFn, content: Any) -> Any:
    """Plain values with one of them replaced, removed or wrapped, somewhere within."""
    if isinstance(content, dict) and content and draw(st.integers(0, 5)):
        name = draw(st.sampled_from(sorted(content, key=str)))
        if not draw(st.integers(0, 5)):
            return {key: value for key, value in content.items() if key != name}
        return {**content, name: draw(absurd(content[name]))}
    if isinstance(content, list) and content and draw(st.booleans()):
        place = draw(st.integers(0, len(content) - 1))
        return [*content[:place], draw(absurd(content[place])), *content[place + 1 :]]
    return draw(VALUES)


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()


# kinds

FIT_OPTIONS: dict[str, Any] = {
    "data": "photos", "model": "resnet20_cifar", "weights": "none", "method": "autolora", "rank": 2, "eps": "8/255",
    "method_options": {"alpha": 2}, "norm": "Linf", "attack": "pgd-1", "schedule": "cosine", "lr": 0.05, "seed": 1,
    "schedule_options": {"warmup": 1}, "momentum": 0.9, "weight_decay": 1e-4, "val_fraction": 0.2, "adapter": None,
    "label_fraction": 1.0, "classes": "red,blue", "augmentation": "none", "precision": "fp32", "workers": 0,
    "checkpoint_minutes": 0.0, "skip_bad_images": False, "reset_momentum": False, "deterministic": False,
    "gradient_similarity": 0, "head": "zero", "step_size": "2/255", "plugin": None, "data_root": None,
}  # fmt: skip
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(8)
)
HOSTILE_YAML = st.sampled_from([
    BOMB, "model: &m [*m]\n", "[" * 3000, "{a: " * 2000, "model: !!binary 3\n", "? [a, b]\n: 3\n", "\t\n", "\x00",
    "model: !!python/object/apply:os.system ['touch ../canary']\n", "model: !!python/name:os.system\n",
    "!!python/object/new:os.system ['touch ../canary']\n", "<<: [1]\n", "model: 2020-01-01\n", "config: c.yaml\n",
    "--- a\n--- b\n", "%YAML 9\n---\n", "- 1\n- 2\n", 'model: "a\\0b"\n',
])  # fmt: skip


JUDGE_OPTIONS: dict[str, Any] = {
    "attack": ["pgd-1"], "eps": ["8/255", "2/255"], "norm": "L2", "limit": 4, "restarts": 1, "seed": 1, "split": "val",
    "batch_size": 4, "image_size": 12, "precision": "fp32", "device": "cpu", "data": "photos", "fast": False,
    "weights": "auto", "weights_format": "auto", "engine": "own", "resume": False, "corruptions": False,
}  # fmt: skip
DOCTOR_OPTIONS: dict[str, Any] = {
    "data": "photos", "eps": "8/255", "norm": "Linf", "split": "test", "seed": 1, "image_size": 12, "quiet": True,
    "weights": "auto", "weights_format": "auto", "json": False,
}  # fmt: skip
REPORT_OPTIONS: dict[str, Any] = {"runs": ["run"], "data": "photos", "no_gallery": True, "device": "cpu"}
CONFIGURED: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("fit", "photos", *QUICKLY), FIT_OPTIONS),
    (("fit", *QUICKLY), FIT_OPTIONS),
    (("evaluate", "run", *JUDGE), JUDGE_OPTIONS),
    (("doctor", "run", "--limit", "6", "--device", "cpu"), DOCTOR_OPTIONS),
    (("report", "run", "--no-gallery", "--out", "out.html"), REPORT_OPTIONS),
)


def _configs(material: Material) -> st.SearchStrategy[Case]:
    @st.composite
    def config(draw: st.DrawFn) -> Case:
        argv, options = draw(st.sampled_from(CONFIGURED))
        chosen = draw(st.lists(st.sampled_from(sorted(options)), min_size=1, max_size=5, unique=True))
        content = {name: options[name] for name in chosen}
        how = draw(st.integers(0, 9))
        if how < 6:
            content = {**content, chosen[0]: draw(absurd(options[chosen[0]]))}
        data = yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")
        if how == 7:
            data = draw(damaged(data))
        elif how == 8:
            data = draw(HOSTILE_YAML).encode()
        elif how == 9:
            data = draw(st.binary(max_size=60))
        return Case("config", (*argv, "--config", "c.yaml"), {"c.yaml": data}, run=True)

    return config()


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("fit", "photos", *QUICKLY),
    ("pretrain", "photos", *QUICKLY),
    ("evaluate", "run", *JUDGE),
    ("doctor", "run", "--limit", "6", "--device", "cpu"),
    ("compare", "run", "run", "--metric", "natural"),
    ("report", "run", "--no-gallery", "--out", "out.html"),
    ("export", "run", "--format", "timm", "--out", "out"),
    ("suite", "list", "--json"),
    ("suite", "show", "loft.T1", "--scale", "small"),
    ("suite", "table", "loft.T1", "--runs", "run"),
    ("params", "resnet20_cifar", "--rank", "2"),
    ("methods", "--filter", "a*"),
    ("models", "--filter", "*20*"),
    ("datasets",),
    ("presets", "--json"),
)
MORE = st.sampled_from([
    "--eps", "--norm", "--seed", "--limit", "--split", "--weights", "--weights-format", "--method", "--schedule", "--x",
    "--method-options.alpha", "--lr", "--classes", "--val-fraction", "--preset", "--plugin", "--config", "--resume",
    "--json", "--help", "--batch-size", "--image-size", "--attack", "--restarts", "--data", "--adapter", "--precision",
    "--engine", "--upsample-to", "--metric", "--private", "--habit", "--seeds", "--beside", "--targets", "--style",
    "--num-classes", "--no-gallery",
])  # fmt: skip


def _arguments(material: Material) -> st.SearchStrategy[Case]:
    @st.composite
    def line(draw: st.DrawFn) -> Case:
        words = list(draw(st.sampled_from(COMMANDS)))
        for _ in range(draw(st.integers(1, 3))):
            place = draw(st.integers(0, len(words)))
            junk = draw(st.one_of(TRICKS, WORDS, MORE, NUMBERS.map(str)))
            action = draw(st.sampled_from(["replace", "insert", "remove", "option"]))
            if action == "option":
                words += [draw(MORE), junk]
            else:
                words[place : place + (action != "insert")] = [] if action == "remove" else [junk]
        for place, word in enumerate(words[1:], start=1):
            if words[place - 1] == "--out" and word not in ("out", "out.html"):
                words[place] = "out"  # wherever that is said to go, it may go
        return Case("arguments", tuple(words), {}, run=True)

    return line()


NAMES = ("x.png", "x.jpg", "x.tif", "x.webp", "<img src=x onerror=alert(1)>.png", "a\nb.png", "x.gif", "é.bmp")


def _images(material: Material) -> st.SearchStrategy[Case]:
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


def _archives(material: Material) -> st.SearchStrategy[Case]:
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


def _checkpoints(material: Material) -> st.SearchStrategy[Case]:
    call = Call(material.canary)
    evil = [pickle.dumps(call), pickle.dumps({"state_dict": call}), pickle.dumps([call, {"a": call}], protocol=0)]
    for legacy in (True, False):
        stream = io.BytesIO()
        torch.save({"state_dict": {"a": torch.ones(2)}, "x": call}, stream, _use_new_zipfile_serialization=not legacy)
        evil.append(stream.getvalue())
    header = b'{"a":{"dtype":"F32","shape":[99999999999,9],"data_offsets":[0,4]}}'
    evil += [struct.pack("<Q", len(header)) + header + bytes(4), struct.pack("<Q", 2**62) + b"{}", b"[" * 9999]
    evil.append(save({f"{'x' * 50}\x1b[2J<script>": torch.ones(1)}))
    whole = [data for name, data in sorted(material.weights.items())]
    data = st.sampled_from(whole).flatmap(damaged) | st.sampled_from(evil) | st.binary(max_size=60)
    data |= st.sampled_from(evil).flatmap(damaged)
    data |= _tampered(material) | st.sampled_from(whole).flatmap(_flipped)
    command = st.sampled_from([
        ("evaluate", "resnet20_cifar", "--weights", "w", "--data", "photos", *JUDGE),
        ("evaluate", "w", "--data", "photos", *JUDGE),
        ("doctor", "resnet20_cifar", "--weights", "w", "--data", "photos", "--limit", "6", "--device", "cpu"),
        ("fit", "photos", "--weights", "w", "--model", "resnet20_cifar", "--image-size", "12", "--epochs", "1",
         "--attack", "pgd-1", "--device", "cpu", "--out", "out", "--quiet"),
    ])  # fmt: skip
    suffix = st.sampled_from([".pth", ".pt", ".safetensors", ".pkl", ".th", ".ckpt", ""])

    def case(argv: tuple[str, ...], content: bytes, ending: str) -> Case:
        words = tuple(f"w{ending}" if word == "w" else word for word in argv)
        return Case("checkpoints", words, {f"w{ending}": content})

    return st.builds(case, command, data, suffix)


@st.composite
def _flipped(draw: st.DrawFn, whole: bytes) -> bytes:
    """Only bits, which a format without checksums cannot see."""
    data = bytearray(whole)
    for place in draw(st.lists(st.integers(0, len(data) - 1), max_size=4)):
        data[place] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


@st.composite
def _tampered(draw: st.DrawFn, material: Material) -> bytes:
    """A sound file whose tensors are not as they should be, or that brings code along with them."""
    state: dict[str, Any] = dict(load(material.weights["safetensors"]))
    name = draw(st.sampled_from(sorted(state)))
    odd = [torch.tensor(float("nan")).expand_as(state[name]).clone(), torch.zeros(0), torch.tensor(1.0)]
    odd += [state[name].to(torch.complex64), state[name].to(torch.int8), state[name].double(), torch.ones(2, 2)]
    state[draw(st.sampled_from([name, f"module.{name}", "../../x", name.upper(), ""]))] = draw(st.sampled_from(odd))
    if draw(st.booleans()):
        return save(state)
    code = {"epoch": Call(material.canary)} if draw(st.booleans()) else {}
    stream = io.BytesIO()
    torch.save({"state_dict": state, **code}, stream)
    return stream.getvalue()


READERS: tuple[tuple[str, ...], ...] = (
    ("evaluate", "run", *JUDGE),
    ("report", "run", "--no-gallery", "--out", "out.html"),
    ("doctor", "run", "--limit", "6", "--device", "cpu"),
    ("compare", "run", "whole"),
    ("export", "run", "--format", "timm", "--out", "out"),
    ("export", "run", "--format", "peft", "--out", "out"),
    ("params", "run"),
    ("fit", "photos", "--model", "run", *QUICKLY[4:]),
    ("fit", "photos", "--adapter", "run/adapter", *QUICKLY[:-2], "--quiet"),
    ("fit", "--config", "run/config.yaml", "--resume"),
)


def _runs(material: Material) -> st.SearchStrategy[Case]:
    names = [path.relative_to(material.run).as_posix() for path in sorted(material.run.rglob("*")) if path.is_file()]

    @st.composite
    def run(draw: st.DrawFn) -> Case:
        argv = draw(st.sampled_from(READERS))
        resumed = argv[-1] == "--resume"
        within = [
            name for name in names if not resumed or name.startswith(("checkpoints/", "config.yaml", "split.json"))
        ]
        name = draw(st.sampled_from(within))
        whole = (material.run / name).read_bytes()
        content = draw(damaged(whole))
        if name.endswith(".json") and draw(st.integers(0, 4)):
            content = _json(draw(absurd(json.loads(whole))))
        elif name.endswith(".yaml") and draw(st.integers(0, 4)):
            content = yaml.safe_dump(draw(absurd(yaml.safe_load(whole)))).encode("utf-8", "surrogatepass")
        elif not draw(st.integers(0, 9)):
            content = draw(
                st.sampled_from([b"", b"[" * 100_000, pickle.dumps(Call(material.canary)), b'{"a":' * 50_000])
            )
        return Case("runs", argv, {f"run/{name}": content}, run=True, removed=("run/result.json",) * resumed)

    return run()
