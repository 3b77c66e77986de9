"""Real inputs where they are, and a tiny data set of pictures that anyone can make."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from headless import Absent, chromium
from longest import by_length

SHARED = Path(__file__).resolve().parents[2] / "shared"
COLOURS = {"blue": (60, 60, 190), "green": (60, 190, 60), "red": (190, 60, 60)}


def pytest_configure() -> None:
    """Hear Ctrl-C, which a shell makes those deaf to that it starts in the background; there are tests of it.

    Hypothesis tries the same examples each time, so that what fails once can be looked at; busy machines are slow.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile("same", derandomize=True, deadline=None)
    settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: of two processes, none shall wait for one that is left to the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (by_length(item.path), item.path not in slow))


@pytest.fixture(autouse=True)
def messages() -> None:
    """Take back what a command that ran in this process, such as one with --quiet, has set for the messages."""
    logging.getLogger("autolora").setLevel(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Take back what a test, or ``main`` in this process, has made of signals: who forks later passes it on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Find a real data set or checkpoint beside the checkout; skip the test where there is none."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.is_file():
            pytest.skip(f"{path} is not on this machine")
        return path

    return find


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes that noise does not hide, 12 training and 6 test images of 12x12 pixels in each."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                noisy = np.clip(rng.normal(colour, 40, (12, 12, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(root / split / name / f"{index:02d}.png")
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser, where there is one or :mod:`headless` may install it.

    It is closed with the file that opened it: its driver ends when the pipe to it does, and a process that any later
    test forks and leaves behind would hold that pipe, so that closing waits for ever.
    """
    try:
        path = chromium()
    except Absent as absent:
        pytest.skip(str(absent))
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()
