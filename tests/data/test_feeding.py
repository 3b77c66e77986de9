"""Feeding: workers, devices, and the time spent waiting."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autolora.data import Splits, WaitingTime, load_splits, loader, unit_range

from .trees import pictures, write


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    return load_splits(write(tmp_path / "d", pictures({"a": 20, "b": 20})), image_size=8, progress=False)


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def batches(self, *waits: float) -> Iterator[int]:
        for number, wait in enumerate(waits):
            self.now += wait
            yield number


def test_waiting_is_the_time_in_which_no_batch_is_there() -> None:
    clock = Clock()
    waiting = WaitingTime(clock.batches(3, 1, 0), clock)
    shares = []
    for number in waiting:
        shares.append(waiting.share)
        clock.now += (2, 4, 0)[number]
    assert shares == pytest.approx([1, 4 / 6, 4 / 10]) and waiting.share == pytest.approx(0.4)
    assert (waiting.waited, waiting.passed) == pytest.approx((4, 10))


def test_every_pass_counts_anew_and_may_end_early() -> None:
    clock = Clock()

    class Batches:
        waits = itertools.cycle([[2.0, 2.0], [1.0, 0.0]])

        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[int]:
            return clock.batches(*next(self.waits))

    waiting = WaitingTime(Batches(), clock)
    assert len(waiting) == 2 and waiting.share == 0
    for _ in waiting:
        clock.now += 2
        break
    assert (waiting.waited, waiting.share) == (2, 1)  # what follows a break is not seen
    for _ in waiting:
        clock.now += 1
    assert (waiting.waited, waiting.passed) == (1, 3)


def test_starting_counts_as_waiting() -> None:
    clock = Clock()

    class Workers:
        def __iter__(self) -> Iterator[int]:
            clock.now += 4  # before the first batch is asked for, as processes that start
            return iter([0])

    waiting = WaitingTime(Workers(), clock)
    assert list(waiting) == [0] and (waiting.waited, waiting.passed) == (4, 4)


def test_the_last_wait_for_nothing_counts() -> None:
    clock = Clock()

    def slow_to_end() -> Iterator[int]:
        yield 1
        clock.now += 5

    waiting = WaitingTime(slow_to_end(), clock)
    assert list(waiting) == [1] and waiting.waited == 5


def test_a_loader_that_sleeps_is_waited_for(splits: Splits) -> None:
    def slow() -> Iterator[object]:
        for batch in loader(splits.train, 8):
            time.sleep(0.02)
            yield batch

    waiting = WaitingTime(slow())
    assert len(list(waiting)) == 4 and waiting.waited >= 0.08 and 0.5 < waiting.share <= 1
    with pytest.raises(TypeError, match="generator does not know"):
        len(waiting)


@pytest.mark.parametrize("workers", [0, 2])
def test_wrapping_changes_no_batch(splits: Splits, workers: int) -> None:
    def batches(wrapped: bool) -> list[torch.Tensor]:
        torch.manual_seed(3)
        made = loader(splits.train, 8, True, num_workers=workers)
        return [x for x, _ in (WaitingTime(made) if wrapped else made)]

    assert torch.equal(torch.cat(batches(True)), torch.cat(batches(False)))


@pytest.mark.parametrize("size", [8, 96])
@pytest.mark.parametrize("workers", [0, 2])
def test_bytes_are_the_same_images(size: int, workers: int, tmp_path: Path) -> None:
    folder = write(tmp_path / "p", pictures({"a": 8, "b": 8}))
    train = load_splits(folder, image_size=size, progress=False).train

    def batches(in_bytes: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
        torch.manual_seed(4)
        made = loader(train, 4, True, num_workers=workers, in_bytes=in_bytes)
        assert all((x.dtype == torch.uint8) == in_bytes for x, _ in made)
        torch.manual_seed(4)
        return [(unit_range(x), y) for x, y in made]

    for (x, y), (again, label) in zip(batches(False), batches(True), strict=True):
        assert x.dtype == again.dtype == torch.float32 and torch.equal(x, again) and torch.equal(y, label)
        assert x.min() >= 0 and x.max() <= 1


def test_on_the_cpu_splits_stay_as_they_are(splits: Splits) -> None:
    assert splits.on(torch.device("cpu")) is splits


def test_photos_and_large_sets_stay_on_the_cpu(splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = torch.device("meta")
    photos = load_splits(tmp_path / "d", image_size=96, progress=False)
    assert photos.on(meta) is photos
    monkeypatch.setattr("autolora.data.splits.CACHE_BYTES", splits.train.pixels.images.nbytes - 1)  # type: ignore[attr-defined]
    assert splits.on(meta) is splits


def test_images_on_a_device_are_shared_and_need_no_workers(splits: Splits) -> None:
    moved = splits.on(torch.device("meta"))  # a device without memory, for want of another
    assert moved.train.pixels is moved.val.pixels is moved.test.pixels is not splits.train.pixels
    assert moved.val.with_augmentation(False).__getitems__([0, 1])[0].device.type == "meta"
    batches = loader(moved.train, 8, num_workers=2, pin_memory=True)
    assert batches.num_workers == 0 and not batches.pin_memory
    batches = loader(splits.train, 8, num_workers=2, pin_memory=True)
    assert batches.num_workers == 2 and batches.pin_memory


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("augmentation", ["none", "crop", "crop-flip"])
def test_batches_on_a_cuda_device_are_the_same_bit_for_bit(splits: Splits, augmentation: str) -> None:
    from dataclasses import replace

    def batches(given: Splits) -> list[tuple[torch.Tensor, torch.Tensor]]:
        torch.manual_seed(5)
        train = replace(given.train, augmentation=augmentation)  # type: ignore[arg-type]
        return [(x, y) for x, y in loader(train, 8, True)]

    there, here = batches(splits.on(torch.device("cuda"))), batches(splits)
    assert all(x.device.type == "cuda" for x, _ in there)
    assert all(torch.equal(a.cpu(), b) and torch.equal(y, z) for (a, y), (b, z) in zip(there, here, strict=True))
