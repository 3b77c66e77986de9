"""Checkpoints: everything needed to continue, in files that a kill leaves whole and that are verified when read."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from autolora.errors import RunError
from autolora.training.checkpoint_store import Damaged, Generations, Link, digest, write_whole

Weights = Mapping[str, Tensor]  # parameters and buffers, by the model's names
WEIGHTS, STATE, BEST = "model.safetensors", "state.pt", "best.safetensors"


@dataclass
class TrainingState:
    """Where a training run stands after an epoch.

    Args:
        epoch: Epochs that are finished.
        best: Best selection score so far, a share of the validation images; below zero before the first.
        history: One row per finished epoch, as in ``metrics.jsonl``.
        seconds: Training time so far, over all sessions of the run.
    """

    epoch: int = 0
    best: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class Saved(NamedTuple):
    """What a checkpoint holds."""

    weights: dict[str, Tensor]  # parameters and buffers, by the model's names
    state: dict[str, Any]  # all else: plain values and tensors
    best: bytes | None  # the best weights of that time, as a file


class Checkpoints:
    """The folder ``checkpoints/`` of a run.

    ``last/`` is what to continue from, and ``previous/`` what was before it, in case ``last/`` is damaged. ``best/``
    holds the weights to go back to and to ship. A checkpoint holds the best weights too, as a second name of the same
    file, so that it stays whole when better ones come.

    Args:
        folder: Where they lie; made when something is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.generations = Generations(folder / "last", folder / "previous")
        self._best: Link | None = None

    def save_best(self, weights: Weights) -> None:
        """Keep these weights and buffers as the best so far.

        Raises:
            OSError: If they cannot be written; the best before them are still there.
        """
        self._keep_best(save(_lying(weights)))

    def load_best(self) -> dict[str, Tensor]:
        """Return the best weights and buffers.

        Raises:
            RunError: If they are not what was saved.
        """
        path = self.folder / "best" / WEIGHTS
        data = path.read_bytes()
        if self._best is not None and digest(data) != self._best.sha256:
            raise RunError(f"{path} is damaged: it is not what was saved; continue the run with --resume")
        return load(data)

    def save_last(self, weights: Weights, state: dict[str, Any], facts: Mapping[str, Any] | None = None) -> None:
        """Keep everything that the rest of the run depends on.

        Args:
            weights: Parameters and buffers of what is trained, by its names.
            state: All else: plain values and tensors, in dicts, lists and tuples.
            facts: What the manifest says for people, such as the epoch.

        Raises:
            OSError: If it cannot be written; the checkpoints before are still there.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        files = {WEIGHTS: save(_lying(weights)), STATE: buffer.getvalue()}
        self.generations.write(files, {} if self._best is None else {BEST: self._best}, facts or {})

    def load_last(self, check: Callable[[Saved], None] | None = None) -> Saved | None:
        """Return the newest whole checkpoint; None if there is none.

        Args:
            check: Raises ``Damaged`` for one that nothing can be continued from, though its checksums agree.

        Raises:
            RunError: If there is one, and none is whole, or if it holds code.
        """

        def understand(files: dict[str, bytes]) -> Saved:
            saved = self._understood(files)
            if check is not None:
                check(saved)
            return saved

        return self.generations.read(understand)

    def _understood(self, files: Mapping[str, bytes]) -> Saved:
        for name in (WEIGHTS, STATE):
            if name not in files:
                raise Damaged(f"lacks {name}")
        try:
            state = torch.load(io.BytesIO(files[STATE]), map_location="cpu", weights_only=True)
        except UnpicklingError as error:  # its message is a page on how to run the code all the same
            raise RunError(
                f"{self.folder} holds a checkpoint with more than tensors and plain values in it, which no run writes; "
                "it is not loaded"
            ) from error
        except Exception as error:  # whatever torch makes of bytes that are no file of its own
            raise Damaged(f"is not what a run writes: {STATE} cannot be read") from error
        return Saved(tensors_of(files[WEIGHTS], WEIGHTS), state, files.get(BEST))

    def go_on_from(self, saved: Saved) -> None:
        """Make the best weights of a checkpoint the best; others may have come after it, and will come again."""
        if saved.best is not None:
            self._keep_best(saved.best)

    def drop_previous(self) -> None:
        """Give back the space of ``previous/``, when the run is finished."""
        self.generations.drop_previous()

    def _keep_best(self, data: bytes) -> None:
        path = self.folder / "best" / WEIGHTS
        self._best = Link(path, digest(data))
        if not path.is_file() or digest(path.read_bytes()) != self._best.sha256:
            write_whole(path, data)


def tensors_of(data: bytes, name: str) -> dict[str, Tensor]:
    """Return the tensors of a file in the format of safetensors.

    Raises:
        Damaged: If it is none; it is called ``name``.
    """
    try:
        return load(data)
    except (SafetensorError, ValueError, LookupError) as error:
        raise Damaged(f"is not what a run writes: {name} cannot be read") from error


def _lying(weights: Weights) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
