"""Decode every image of a data set once, at the start, so that a bad one is found before training and not during it."""

import hashlib
import os
import warnings
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from tqdm import tqdm

from autolora.data.decoding import decode, named_failure
from autolora.data.pixels import Array, Pixels
from autolora.data.sources import Source, UnreadableImage

THREADS = 8  # at most: Pillow decodes and resizes without the interpreter lock


class Decoded(NamedTuple):
    """One image: what the pipeline keeps, its shorter side in the file (pixels) and the SHA-256 of the file.

    Of an image that is not decoded, the SHA-256 alone.
    """

    pixels: Array | None
    shorter: int
    digest: str


@dataclass(frozen=True)
class Reading:
    """What was learnt by reading all sources; keys are rows."""

    digests: dict[int, str]
    shorter: dict[int, int]
    failures: dict[int, UnreadableImage]


def read_all(
    sources: Sequence[Source], pixels: Pixels, *, only: Container[int] | None = None, progress: bool
) -> Reading:
    """Decode each source into its row of ``pixels``, in parallel; failures are collected, not raised.

    Args:
        sources: The images.
        pixels: Where they go.
        only: Rows to decode; of the others the digest is taken. None: all of them.
        progress: Show a bar.
    """
    reading, rows = Reading({}, {}, {}), range(len(sources))
    pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
    bar = tqdm(total=len(sources), desc="reading images", unit="image", disable=not progress, leave=False)
    try:
        with warnings.catch_warnings(), bar:
            warnings.filterwarnings("ignore", module="PIL")  # an image is read or refused; a warning names none
            results = pool.map(lambda row: attempt(sources[row], pixels, only is None or row in only), rows)
            for row, result in zip(rows, results, strict=True):
                record(reading, row, result, pixels)
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C need not wait for the rest
    return reading


def attempt(source: Source, pixels: Pixels, decoding: bool = True) -> Decoded | UnreadableImage:
    """One image, or why there is none."""
    try:
        with named_failure(source.name):
            data = source.read()
            digest = hashlib.sha256(data).hexdigest()
            if not decoding:
                return Decoded(None, 0, digest)
            image = decode(data)
            return Decoded(pixels.prepare(image), min(image.size), digest)
    except UnreadableImage as error:
        return error


def record(reading: Reading, row: int, result: Decoded | UnreadableImage, pixels: Pixels) -> None:
    """Enter one result under its row."""
    if isinstance(result, UnreadableImage):
        reading.failures[row] = result
        return
    reading.digests[row] = result.digest
    if result.pixels is not None:
        pixels.put(row, result.pixels)
        reading.shorter[row] = result.shorter


def copy_notes(reading: Reading, train: Sequence[int], test: Sequence[int]) -> list[str]:
    """How many test images are, byte by byte, training images too, which were learnt by heart.

    Args:
        reading: Of all images.
        train: Rows of the training images.
        test: Rows of the test images.
    """
    learnt = {reading.digests[row] for row in train}
    copies = sum(reading.digests[row] in learnt for row in test)
    if not copies:
        return []
    if copies == 1:
        return ["1 test image is a copy of a training image; `autolora doctor` names it"]
    return [f"{copies} test images are copies of training images; `autolora doctor` names them"]
