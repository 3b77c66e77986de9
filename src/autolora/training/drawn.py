"""A data set that notes where the random generator stood at each draw, and can draw again from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from autolora.data import UnreadableImage


@dataclass(frozen=True)
class Note:
    """What a batch says of itself; bytes and numbers alone, which cost nothing between processes."""

    rows: tuple[int, ...]
    after: bytes  # state of the generator that its augmentation was drawn from
    failure: str = ""  # why there is no batch


class Drawn(Dataset[Any]):
    """A data set that notes the random states around its draws, and can repeat some of them.

    A batch is ``(batch, note)``. The object is copied into the workers when a pass begins.

    Args:
        dataset: The data set; whole batches by ``__getitems__``, or items.
        collate: Makes a batch of what it gives.
    """

    def __init__(self, dataset: Any, collate: Any) -> None:
        self.dataset, self.collate = dataset, collate
        self.begin()

    def begin(self, skipped: int = 0, states: Sequence[bytes] = (), workers: dict[int, bytes] | None = None) -> None:
        """Prepare a pass: from its start, or behind so many batches.

        Args:
            skipped: Batches that are not drawn again.
            states: For draws in this process: the states before the next ones.
            workers: For draws in workers: the state that each had reached; one without a state had not begun.
        """
        self.skipped, self.states, self.workers = skipped, list(states), workers or {}
        self.ahead: list[bytes] = []  # states before the draws in this process that nobody has asked for yet
        self.fresh = True

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, rows: Sequence[int]) -> tuple[Any, Note]:
        """Return a batch, collated, and its note."""
        if get_worker_info() is not None:
            return self._in_worker(rows)
        if self.states:
            set_generator_state(self.states.pop(0))
        before = generator_state()
        try:
            batch = self._batch(rows)
        except Exception:
            set_generator_state(before)  # as if nobody had asked: what was drawn before can still be saved
            raise
        self.ahead.append(before)
        return batch, Note(tuple(rows), generator_state())

    def _in_worker(self, rows: Sequence[int]) -> tuple[Any, Note]:
        if self.fresh:
            self.fresh = False
            self._take_over()
        try:
            return self._batch(rows), Note(tuple(rows), generator_state())
        except Exception as error:  # torch would send it on as a page of text
            return None, Note(tuple(rows), b"", reason(error))

    def _take_over(self) -> None:
        """Go on where the worker was that had this turn: the first of this pass has the turn after the skipped."""
        info = get_worker_info()
        assert info is not None
        turn = (info.id + self.skipped) % info.num_workers
        if turn in self.workers:
            set_generator_state(self.workers[turn])
        else:
            torch.manual_seed(info.seed - info.id + turn)

    def _batch(self, rows: Sequence[int]) -> Any:
        items = self.dataset.__getitems__(rows) if hasattr(self.dataset, "__getitems__") else None
        return self.collate([self.dataset[row] for row in rows] if items is None else items)


def reason(error: Exception) -> str:
    """Say in a line why there is no batch."""
    if isinstance(error, UnreadableImage):
        return f"{error.name} can no longer be read ({error.reason})"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


def generator_state() -> bytes:
    """Return where torch's global generator stands."""
    return torch.get_rng_state().numpy().tobytes()


def set_generator_state(state: bytes) -> None:
    """Let torch's global generator go on from a state."""
    torch.set_rng_state(as_tensor(state))


def as_tensor(state: bytes) -> Tensor:
    """Return a state in the form that torch and checkpoints take."""
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)


def as_bytes(state: Tensor) -> bytes:
    """Return a state in the form that costs nothing between processes."""
    return state.numpy().tobytes()
