"""Files of weights, and run folders: damaged, tampered with, or with code in them."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
from typing import Any

import torch
import yaml
from hostile_cases import JUDGE, QUICKLY, Call, Case, Material
from hostile_values import VALUES, absurd, damaged
from hypothesis import strategies as st
from safetensors.torch import load, save


def checkpoints(material: Material) -> st.SearchStrategy[Case]:
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


def runs(material: Material) -> st.SearchStrategy[Case]:
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
            content = json.dumps(draw(absurd(json.loads(whole)))).encode()
        elif name.endswith(".yaml") and draw(st.integers(0, 4)):
            content = yaml.safe_dump(draw(absurd(yaml.safe_load(whole)))).encode("utf-8", "surrogatepass")
        elif not draw(st.integers(0, 9)):
            content = draw(
                st.sampled_from([b"", b"[" * 100_000, pickle.dumps(Call(material.canary)), b'{"a":' * 50_000])
            )
        files = {f"run/{name}": content}
        if resumed and draw(st.booleans()):
            files = draw(_signed(material))
        return Case("runs", argv, files, run=True, removed=("run/result.json",) * resumed)

    return run()


@st.composite
def _signed(draw: st.DrawFn, material: Material) -> dict[str, bytes]:
    """A checkpoint with something odd in it, and a manifest whose checksum says that it is as it was written."""
    folder = "checkpoints/last"
    state = torch.load(material.run / folder / "state.pt", weights_only=True)
    place, name = state, draw(st.sampled_from(sorted(state)))
    while isinstance(place[name], dict | list) and place[name] and draw(st.integers(0, 3)):
        place = place[name]
        name = draw(st.sampled_from(sorted(place, key=str) if isinstance(place, dict) else range(len(place))))
    odd = [torch.ones(2, 3), torch.zeros(0), torch.arange(5056, dtype=torch.uint8), ("a", 1), 2**70]
    place[name] = draw(st.sampled_from(odd) | VALUES)
    stream = io.BytesIO()
    torch.save(state, stream)
    manifest = json.loads((material.run / folder / "manifest.json").read_text())
    manifest["sha256"]["state.pt"] = hashlib.sha256(stream.getvalue()).hexdigest()
    return {f"run/{folder}/state.pt": stream.getvalue(), f"run/{folder}/manifest.json": json.dumps(manifest).encode()}
