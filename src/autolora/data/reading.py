"""Decode every image of a data set once, at the start, so that a bad one is found before training and not during it."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from tqdm import tqdm

from autolora.data.decoding import decode, named_failure
from autolora.data.pixels import Array, Pixels
from autolora.data.sources import Source, UnreadableImage

THREADS = 8  # at most: Pillow decodes and resizes without the interpreter lock


class Decoded(NamedTuple):
    """One image: what the pipeline keeps, its shorter side in the file (pixels) and the SHA-256 of the file."""

    pixels: Array
    shorter: int
    digest: str


@dataclass(frozen=True)
class Reading:
    """What was learnt by reading all sources; keys are rows."""

    digests: dict[int, str]
    shorter: dict[int, int]
    failures: dict[int, UnreadableImage]


def read_all(sources: Sequence[Source], pixels: Pixels, *, progress: bool) -> Reading:
    """Decode each source into its row of ``pixels``, in parallel; failures are collected, not raised."""
    reading = Reading({}, {}, {})
    pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
    bar = tqdm(total=len(sources), desc="reading images", unit="image", disable=not progress, leave=False)
    try:
        with warnings.catch_warnings(), bar:
            warnings.filterwarnings("ignore", module="PIL")  # an image is read or refused; a warning names none
            for row, result in enumerate(pool.map(lambda source: attempt(source, pixels), sources)):
                record(reading, row, result, pixels)
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C need not wait for the rest
    return reading


def attempt(source: Source, pixels: Pixels) -> Decoded | UnreadableImage:
    """One image, or why there is none."""
    try:
        with named_failure(source.name):
            data = source.read()
            image = decode(data)
            return Decoded(pixels.prepare(image), min(image.size), hashlib.sha256(data).hexdigest())
    except UnreadableImage as error:
        return error


def record(reading: Reading, row: int, result: Decoded | UnreadableImage, pixels: Pixels) -> None:
    """Enter one result under its row."""
    if isinstance(result, UnreadableImage):
        reading.failures[row] = result
    else:
        pixels.put(row, result.pixels)
        reading.digests[row] = result.digest
        reading.shorter[row] = result.shorter
