"""Weights into models: every name and every shape must fit, and what does not is listed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.checkpoints.contents import read_contents
from autolora.models.checkpoints.names import shown

__all__ = ["load_strictly", "misfits", "read_state"]

ADVICE = "Name the architecture that they were saved from with --model"


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.safetensors`` file or a torch checkpoint. No pickled code ever runs.

    A container (``{"state_dict": ...}``) is opened, and prefixes that wrappers put before every name are taken off.
    What formats beyond that need is in :func:`autolora.models.checkpoints.load_checkpoint`.

    Raises:
        InputError: If the file is absent, is no checkpoint, would run code, or holds no tensors.
    """
    return read_contents(path).state


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: str, advice: str = ADVICE) -> None:
    """Load a state dict into a model; every name and shape must fit.

    Args:
        model: Takes the weights.
        state: Tensors by the model's own names.
        source: Where they come from, for the message.
        advice: What to do if they do not fit.

    Raises:
        InputError: If names are missing or unexpected, or shapes differ; the message lists them. If a value is no
            number, which would only be noticed when the loss is none either.
    """
    own = model.state_dict()
    found = {what: names for what, names in misfits(own, state).items() if names}
    if found:
        listed = "; ".join(f"{what}: {_listing(names)}" for what, names in found.items())
        raise InputError(f"weights {source} do not fit the model {type(model).__name__}: {listed}. {advice}")
    if bad := [name for name, value in state.items() if value.is_floating_point() and value.isnan().any()]:
        raise InputError(
            f"weights {source} hold values that are no numbers (NaN), in {_listing(bad)}: their training went wrong; "
            "give a checkpoint of before that"
        )
    model.load_state_dict({**own, **state})


def misfits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """List what differs between a model's own state dict and another, by kind; checkpoints may not count batches."""
    return {
        "missing": [name for name in own if name not in state and not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }


def _listing(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more
