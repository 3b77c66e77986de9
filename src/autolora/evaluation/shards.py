"""Verdicts on disk, shard by shard, so that a killed evaluation continues and several processes share one.

A shard is a fixed run of the images, and its random numbers are its own: which process judges it, and after how many
interruptions, makes no difference to the verdicts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from autolora.errors import InputError

MANIFEST = "manifest.json"
NEW = ("image_size", "architecture", "settings")  # circumstances that evaluations of before do not tell
DIGEST = "sha256"  # in the header of a shard's file: of its tensors


class Shard(NamedTuple):
    """What was found out about some of the images, in their order."""

    label: Tensor  # (N,) int64
    predicted: Tensor  # (N,) int64: of the natural images
    by: Tensor  # (N,) int64: what felled an image; see attacks.autoattack.ensemble
    fallen: Tensor  # (F, C, H, W) in [0, 1]: the adversarial images, of those that fell to an attack


@dataclass(frozen=True)
class Shards:
    """A folder of shards that belong to one attack on one model and one set of images.

    Args:
        folder: Where they lie; made when the first is written.
        total: Images in all.
        size: Images in a shard; the last may hold fewer.
    """

    folder: Path
    total: int
    size: int

    def __len__(self) -> int:
        return -(-self.total // self.size)

    def rows(self, number: int) -> range:
        """Return which images a shard holds."""
        return range(number * self.size, min(self.total, (number + 1) * self.size))

    def open(self, circumstances: Mapping[str, Any]) -> None:
        """Begin, or continue what was begun under the same circumstances.

        Args:
            circumstances: What the verdicts depend on: model, images, threat model, attack, seed. Plain JSON.

        Raises:
            InputError: If the folder holds verdicts that were found under others.
        """
        content = json.loads(json.dumps({**circumstances, "total": self.total, "shard": self.size}))
        path = self.folder / MANIFEST
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(path, json.dumps(content, indent=2) + "\n")
            return
        found = _read(path)
        for name in content:
            if name in NEW and name not in found:  # begun before it was written down
                continue
            if found.get(name) != content[name]:
                raise InputError(
                    f"{self.folder} holds verdicts with {name}={found.get(name)}, not {content[name]}; they cannot be "
                    "continued: name another folder with --out"
                )

    def missing(self, rank: int = 0, processes: int = 1) -> Iterator[int]:
        """Yield the shards still to be judged, of those that are a process's own."""
        return (number for number in range(rank, len(self), processes) if self.read(number) is None)

    def write(self, number: int, shard: Shard) -> None:
        """Keep a shard; a kill leaves it whole or not there."""
        path = self._path(number)
        new = path.with_name(f".{path.name}.new")
        tensors = {name: tensor.contiguous().cpu() for name, tensor in shard._asdict().items()}
        try:
            save_file(tensors, new, {DIGEST: _digest(tensors)})
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise

    def read(self, number: int) -> Shard | None:
        """Return a shard, or None if it is not there or not what was written."""
        try:
            with safe_open(self._path(number), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                if (file.metadata() or {}).get(DIGEST) != _digest(tensors):
                    return None
            shard = Shard(**tensors)
        except (SafetensorError, OSError, TypeError, ValueError):
            return None
        return shard if len(shard.label) == len(self.rows(number)) else None

    def together(self) -> Shard:
        """Return the verdicts of all images, without the images.

        Raises:
            ValueError: If a shard is missing.
        """
        found = [self.read(number) for number in range(len(self))]
        whole = [shard for shard in found if shard is not None]
        if len(whole) < len(found):
            raise ValueError(f"{self.folder}: {len(found) - len(whole)} of {len(found)} shards are missing")
        label, predicted, by = (torch.cat(column) for column in list(zip(*whole, strict=True))[:3])
        return Shard(label, predicted, by, whole[0].fallen[:0])

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged; delete {path.parent}, or name another folder with --out")
    return content


def _digest(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())  # numpy has no bf16
    return found.hexdigest()
