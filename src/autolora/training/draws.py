"""Batches whose order and augmentation can be taken up again in the middle of a pass, to the bit.

Which image comes when is drawn at the start of a pass. How an image is augmented is drawn when its batch is made: from
torch's global generator, in turns with the attacks, or in a worker process from a generator of the worker's own. So
the start of the pass and the states before some of the draws are what has to be kept; images that were seen already
are neither decoded nor augmented again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sized
from contextlib import closing
from traceback import clear_frames
from types import FrameType
from typing import Any, cast

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader

from autolora.data import UnreadableImage, unit_range
from autolora.errors import RunError
from autolora.training.drawn import Drawn, Note, as_bytes, as_tensor, generator_state, reason

GRACE = 30  # seconds that a worker lives on after SIGTERM, so that the batch at work can be finished and saved
DIED = ("DataLoader worker", "Pin memory thread exited")  # torch has no class for it
Position = dict[str, Any]  # where a pass stands, as a checkpoint keeps it


class LoadingError(RunError):
    """The next batch cannot be made; what was trained so far is in order, and can be saved."""


class WorkerDied(LoadingError):
    """A process that loads images has died.

    Args:
        error: What torch, or the pipe to that process, made of it.
    """

    def __init__(self, error: BaseException) -> None:
        said = " ".join(str(error).split()) or type(error).__name__
        super().__init__(f"a process that loads images has died ({said})")

    @classmethod
    def by(cls, error: RuntimeError) -> WorkerDied | None:
        """Return what an error means that torch raises wherever the main process is when a worker dies, if it is one.

        The objects that the error came through are let go, since they may hold the workers that still live.
        """
        if isinstance(error, RunError) or not any(said in str(error) for said in DIED):
            return None
        clear_frames(error.__traceback__)
        return cls(error)


class Draws:
    """A loader of ``(x, y)`` batches for one process of a run, whose passes can be continued.

    Images that come as bytes, 0 to 255, are put into [0, 1] here, on the device.

    Args:
        loader: Any loader of a data set with a length.
        accelerator: Devices and processes.
        once: Deal every image to one process, in the order of the data set: for judging. Batches may then differ in
            number from process to process.
    """

    def __init__(self, loader: DataLoader[Any], accelerator: Accelerator, *, once: bool = False) -> None:
        self.drawn = Drawn(loader.dataset, loader.collate_fn)
        if once and accelerator.num_processes > 1:  # accelerate would repeat images until the shares are even
            self.loader: Any = prepare_data_loader(
                _with(loader, self.drawn, _share(loader, accelerator)), accelerator.device, 1, 0, put_on_device=True
            )
        else:
            self.loader = accelerator.prepare(_with(loader, self.drawn))
        self.in_workers = loader.num_workers
        self.rows: tuple[int, ...] = ()  # of the data set, in the last batch
        self._continued: Position | None = None
        self._reset(torch.get_rng_state(), None)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Begin a pass, or continue the one that :meth:`resume` was told of; leaves the global generator in order.

        Raises:
            LoadingError: If an image cannot be read any more, or a worker has died.
        """
        position, self._continued = self._continued, None
        now = torch.get_rng_state()
        loader = self._begin() if position is None else self._skip(position)
        with closing(iter(loader)) as batches:  # ends its workers, whoever keeps the error that ends the pass
            while (item := _next(batches, self.in_workers)) is not None:
                batch, note = item
                if position is not None and (self.in_workers or self.drawn.states):
                    torch.set_rng_state(now)  # no draw has done so
                position = None
                self._count(note)
                x, y = batch
                yield unit_range(x), y

    def position(self) -> Position:
        """Return what :meth:`resume` needs to continue this pass behind the batch that came last."""
        return {
            "batches": self.batches,
            "order": self.order,
            "generator": self.generator,
            "ahead": [as_tensor(state) for state in self.drawn.ahead],
            "workers": {turn: as_tensor(state) for turn, state in self.workers.items()},
            "in_workers": self.in_workers,
        }

    @property
    def shuffling(self) -> Tensor | None:
        """State of the generator by which several processes shuffle alike; None for one process, which needs none."""
        shared = getattr(self.loader, "synchronized_generator", None)
        return None if shared is None else shared.get_state()

    @shuffling.setter
    def shuffling(self, state: Tensor | None) -> None:
        if state is not None:
            self.loader.synchronized_generator.set_state(state)

    def resume(self, position: Position) -> None:
        """Let the next pass be the rest of the one at ``position``.

        The global generator has to be where it was then when the pass begins.
        """
        same = position["in_workers"] == self.in_workers  # else whoever draws begins anew
        workers = {turn: as_bytes(state) for turn, state in position["workers"].items() if same}
        self._reset(position["order"], position["generator"], position["batches"], workers)
        self._continued = position if self.batches < len(self) else None

    def _reset(
        self, order: Tensor, generator: Tensor | None, batches: int = 0, workers: dict[int, bytes] | None = None
    ) -> None:
        self.order, self.generator, self.batches = order, generator, batches
        self.workers = workers or {}  # worker to the state that it had reached with its last batch that came

    def _begin(self) -> Any:
        self._reset(torch.get_rng_state(), self.shuffling)
        self.drawn.begin()
        return self.loader

    def _skip(self, position: Position) -> Any:
        states = [*(as_bytes(state) for state in position["ahead"]), generator_state()]
        self.drawn.begin(self.batches, () if self.in_workers else states, self.workers)
        torch.set_rng_state(self.order)
        self.shuffling = self.generator
        return skip_first_batches(self.loader, self.batches)

    def _count(self, note: Note) -> None:
        self.rows = note.rows
        if self.in_workers:
            self.workers[self.batches % self.in_workers] = note.after
        else:
            self.drawn.ahead.pop(0)
        self.batches += 1


def _next(batches: Iterator[tuple[Any, Note]], workers: int) -> tuple[Any, Note] | None:
    """Return the next batch, or None at the end of a pass."""
    try:
        item = next(batches, None)
    except UnreadableImage as error:
        raise LoadingError(reason(error)) from error
    except RuntimeError as error:
        if (died := WorkerDied.by(error)) is None:
            raise
        raise died from error
    except (ConnectionError, EOFError) as error:  # the worker has died before its batch was taken over
        if not workers:
            raise
        clear_frames(error.__traceback__)
        raise WorkerDied(error) from error
    if item is not None and item[1].failure:
        raise LoadingError(item[1].failure)
    return item


def _share(loader: DataLoader[Any], accelerator: Accelerator) -> dict[str, Any]:
    """Return how this process takes every n-th image, in batches that together are those of the loader."""
    rows = range(accelerator.process_index, len(cast(Sized, loader.dataset)), accelerator.num_processes)
    size = loader.batch_size or len(next(iter(cast(Iterable[list[int]], loader.batch_sampler))))
    return {"batch_size": -(-size // accelerator.num_processes), "sampler": rows}


def _with(loader: DataLoader[Any], dataset: Drawn, share: dict[str, Any] | None = None) -> DataLoader[Any]:
    """Return a loader like another one, of another data set that makes whole batches; workers last for a pass."""
    sampling: dict[str, Any] = {"batch_sampler": loader.batch_sampler}
    if share is not None:
        sampling = share
    elif loader.batch_size is not None:
        sampling = {"batch_size": loader.batch_size, "sampler": loader.sampler, "drop_last": loader.drop_last}
    return DataLoader(
        dataset,
        **sampling,
        num_workers=loader.num_workers,
        collate_fn=_as_it_is,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=_leave_signals if loader.worker_init_fn is None else loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


def _leave_signals(worker: int) -> None:
    """Leave signals, which often go to all processes at once, to the one that trains: it still needs its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, _end_soon)


def _end_soon(number: int, frame: FrameType | None) -> None:
    signal.alarm(GRACE)


def _as_it_is(batch: Any) -> Any:
    return batch
