"""Feed batches to a model, and see whether it has to wait for them."""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader

from autolora.data.imageset import ImageSet
from autolora.data.pixels import SmallPixels

T = TypeVar("T")


def whole_batch(batch: Any) -> Any:
    """Collate function for data sets with ``__getitems__``: the batch is one already."""
    return batch


def loader(
    dataset: ImageSet,
    batch_size: int,
    shuffle: bool = False,
    *,
    generator: torch.Generator | None = None,
    num_workers: int = 0,
    drop_last: bool = False,
    pin_memory: bool = False,
    in_bytes: bool = False,
) -> DataLoader[Any]:
    """Batches ``(x, y)``: x float32 (N, 3, S, S) in [0, 1], y int64 (N,); in index order unless ``shuffle``.

    The order, and the seeds of the workers, are drawn from ``generator``, or from torch's global one without it.

    Args:
        dataset: The images. Those that lie on a device already (`Splits.on`) need neither workers nor pinned memory.
        batch_size: Images in a batch.
        shuffle: Whether in random order.
        generator: Of the order.
        num_workers: Processes that cut and augment batches.
        drop_last: Whether to leave out a last batch that is smaller.
        pin_memory: Whether batches come in page-locked memory, from which they are copied to a CUDA device faster.
        in_bytes: Whether x comes as uint8 in 0..255, a quarter of the bytes, for `unit_range` to convert.
    """
    on_device = isinstance(dataset.pixels, SmallPixels) and dataset.pixels.images.device.type != "cpu"
    return DataLoader(
        replace(dataset, in_bytes=in_bytes),
        batch_size=batch_size,
        shuffle=shuffle,
        generator=generator,
        num_workers=0 if on_device else num_workers,
        drop_last=drop_last,
        pin_memory=pin_memory and not on_device,
        collate_fn=whole_batch,
    )


class WaitingTime(Generic[T]):
    """Batches, and how long the one who takes them has waited for them, in the pass that is under way or was the last.

    Work on a CUDA device goes on while the next batch is waited for, so there the share is what could at most be saved.

    Args:
        batches: What is iterated over, as often as wanted.
        clock: Seconds, from anywhere.
    """

    def __init__(self, batches: Iterable[T], clock: Callable[[], float] = time.perf_counter) -> None:
        self.batches, self.clock = batches, clock
        self.waited = self.passed = 0.0  # seconds

    def __len__(self) -> int:
        """Return how many batches there are, where that is known."""
        if not isinstance(self.batches, Sized):
            raise TypeError(f"{type(self.batches).__name__} does not know how many batches it has")
        return len(self.batches)

    def __iter__(self) -> Iterator[T]:
        self.waited = self.passed = 0.0
        began = asked = self.clock()
        iterator = iter(self.batches)  # starts the workers, so this is waiting too
        while True:
            batch = next(iterator, END)
            now = self.clock()
            self.waited += now - asked
            self.passed = now - began
            if batch is END:
                return
            yield batch  # type: ignore[misc]  # END is what ends, and no batch
            asked = self.clock()
            self.passed = asked - began

    @property
    def share(self) -> float:
        """Return the share of the time that was spent waiting, in [0, 1]."""
        return self.waited / self.passed if self.passed else 0.0


END = object()
