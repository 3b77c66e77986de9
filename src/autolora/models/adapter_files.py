"""Adapters on disk, in the format of Hugging Face PEFT, which loads them onto timm's model without this package.

``adapter_config.json`` and ``adapter_model.safetensors`` are PEFT's, and it reads no other file. ``autolora.json``
holds what PEFT has no place for: backbone and its fingerprint, normalisation, names of the classes, circumstances.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from autolora.errors import InputError
from autolora.models.adapters import Adapter
from autolora.models.peft_format import from_peft, peft_config, peft_tensors
from autolora.models.robust import Architecture
from autolora.models.upsampling import Upsampling, upsampling_of
from autolora.models.weights import read_state

__all__ = ["load_adapter", "save_adapter"]

CONFIG, TENSORS, FACTS = "adapter_config.json", "adapter_model.safetensors", "autolora.json"


def save_adapter(adapter: Adapter, folder: Path, classes: Sequence[str], record: Mapping[str, Any]) -> None:
    """Write an adapter so that ``peft.PeftModel.from_pretrained`` loads it onto timm's model of the backbone.

    Args:
        adapter: What to write; it knows which backbone it belongs to.
        folder: Where to write; made if need be. An adapter that is there is replaced.
        classes: Names of the classes, in the order of the logits.
        record: Circumstances, such as the threat model and scores, as far as JSON can say them.
    """
    assert adapter.architecture is not None and len(classes) == len(adapter.head["bias"])
    facts = {
        "architecture": asdict(adapter.architecture),
        "mean": adapter.mean,
        "std": adapter.std,
        "fingerprint": adapter.fingerprint,
        "classes": list(classes),
        "record": dict(record),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)  # without it the folder loads nowhere; it comes back last
    _place(folder / TENSORS, lambda path: save_file(peft_tensors(adapter), path, {"format": "pt"}))
    _place(folder / FACTS, lambda path: _write_json(path, facts))
    _place(folder / CONFIG, lambda path: _write_json(path, peft_config(adapter)))


def load_adapter(folder: str | Path) -> Adapter:
    """Read an adapter that :func:`save_adapter` or PEFT wrote.

    Of PEFT's own, plain LoRA of convolutions and linear layers can be read. Such an adapter does not say which weights
    it belongs to, so that only its shapes are checked when it is merged.

    Args:
        folder: The adapter's folder, or a run folder that holds ``adapter/``.

    Raises:
        InputError: If files are absent or broken, or hold something else.
    """
    folder = _find(Path(folder))
    if not (folder / TENSORS).is_file():
        raise InputError(f"adapter {folder}: {TENSORS} is not there, and no pickled file is read; save it again")
    config, tensors = _read_json(folder / CONFIG), read_state(folder / TENSORS)
    try:
        adapter = from_peft(config, tensors)
        return _with_facts(adapter, _read_json(folder / FACTS)) if (folder / FACTS).exists() else adapter
    except InputError as error:
        raise InputError(f"adapter {folder}: {error}") from None


def _with_facts(adapter: Adapter, facts: Mapping[str, Any]) -> Adapter:
    """Add what ``autolora.json`` says."""
    try:
        described = facts["architecture"]
        architecture = Architecture(
            name=str(described["name"]),
            classifier=str(described["classifier"]),
            input_size=_size(*described["input_size"]),
            arguments=dict(described["arguments"]),
            upsampling=_upsampling(described.get("upsampling")),  # absent in files of before there was any
        )
        found = replace(
            adapter,
            architecture=architecture,
            mean=tuple(map(float, facts["mean"])),
            std=tuple(map(float, facts["std"])),
            fingerprint=str(facts["fingerprint"]),
            classes=tuple(map(str, facts["classes"])),
            record=dict(facts["record"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{FACTS} is not as it was written ({error!r}); fetch or save it again") from None
    if len(found.classes) != len(found.head.get("bias", ())) or found.classifier != architecture.classifier:
        raise InputError(
            f"its head is not one of {len(found.classes)} classes, as {FACTS} says; fetch or save it again"
        )
    return found


def _size(channels: int, height: int, width: int) -> tuple[int, int, int]:
    return int(channels), int(height), int(width)


def _upsampling(described: Any) -> Upsampling | None:
    return None if described is None else upsampling_of(described, FACTS)


def _find(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"adapter {folder}: no such folder; give a run folder of loft, or its adapter/ folder")
    found = next((path for path in (folder, folder / "adapter") if (path / CONFIG).is_file()), None)
    if found is None:
        raise InputError(f"adapter {folder}: no {CONFIG} in it; give a finished run of loft, or its adapter/ folder")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"adapter file {path} cannot be read ({error}); fetch or save it again") from None
    if not isinstance(content, dict):
        raise InputError(f"adapter file {path} is no JSON object; fetch or save it again")
    return content


def _place(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under another name, and rename it when it is whole and on the disk."""
    new = path.with_name(f".{path.name}.new")
    write(new)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(path)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
