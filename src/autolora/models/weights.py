"""Weights from files: read tensors without running code, find the state dict, load it strictly."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from autolora.errors import InputError

CONTAINERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
WRAPPERS = ("module.", "_orig_mod.")  # DataParallel and torch.compile put these in front of every name


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.safetensors`` file or a torch checkpoint. No pickled code ever runs.

    A container (``{"state_dict": ...}``) is opened, and prefixes that wrappers put before every name are taken off.

    Raises:
        InputError: If the file is absent, is no checkpoint, would run code, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights {path}: no such file; give a checkpoint file, 'pretrained', 'packaged' or 'none'")
    state = {name: value for name, value in _open(_read(path)).items() if isinstance(value, Tensor)}
    if not state:
        raise InputError(f"weights {path}: no tensors in it; give a file that holds a state dict")
    while (prefix := _wrapper_of(state)) is not None:
        state = {name[len(prefix) :]: value for name, value in state.items()}
    return state


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict into a model; every name and shape must fit.

    Raises:
        InputError: If names are missing or unexpected, or shapes differ; the message lists them.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        lists = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        found = "; ".join(f"{what}: {_listing(names)}" for what, names in lists if names)
        raise InputError(
            f"weights {source} do not fit the model {type(model).__name__}: {found}. "
            "Name the architecture that they were saved from with --model"
        )
    model.load_state_dict({**own, **state})


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"weights {path}: not a readable safetensors file ({error}); fetch it again") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(
            f"weights {path}: refused, since loading it could run code ({_blocked(str(error)) or reason}); "
            "save its state dict alone (torch.save(model.state_dict(), ...) or safetensors) and give that file"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(f"weights {path}: not a readable checkpoint ({error}); fetch it again") from None


def _blocked(message: str) -> str:
    """Name the global that torch refused, as its message does: ``Unsupported global: GLOBAL os.system``."""
    for part in message.replace("\n", " ").split(". "):
        if "GLOBAL " in part:
            return "global " + part.split("GLOBAL ", 1)[1].split()[0]
    return ""


def _open(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        return {}
    for name in CONTAINERS:
        if isinstance(content.get(name), Mapping):
            return content[name]
    return content


def _wrapper_of(state: Mapping[str, Tensor]) -> str | None:
    return next((prefix for prefix in WRAPPERS if all(name.startswith(prefix) for name in state)), None)


def _listing(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
