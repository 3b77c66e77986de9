"""Signals that ask a run to end: held back until what it does can be saved."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

ECHO = 0.25  # seconds: a terminal interrupts every process, and a launcher such as uv or torchrun does so again
NAMES = {signal.SIGINT: b"Ctrl-C", signal.SIGTERM: b"a request to end (SIGTERM)"}


class Interrupted(BaseException):
    """A signal has come, and all is in a state that can be saved. It never leaves :class:`Interruption`."""


class Interruption:
    """A stretch of work in which SIGINT and SIGTERM wait until they are asked for with :meth:`check`.

    In the end the handlers that were there before come back, and get the signal that was held back: Ctrl-C is a
    ``KeyboardInterrupt`` then, as ever. A second SIGINT ends the process at once. Outside the main thread, where Python
    knows no handlers, nothing changes.

    Args:
        alone: Whether no other process waits for this one. If one does, all have to agree on where to end: what
            :attr:`requested` says is theirs to exchange, and neither :meth:`check` nor :meth:`at_once` ends anything.
    """

    def __init__(self, alone: bool = True) -> None:
        self.alone = alone
        self.requested: int | None = None
        self._at_once = False
        self._heard = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in NAMES:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, Interrupted) or (error is None and self.requested is not None):
            if self.requested is not None:  # if not, another process of the run got it
                signal.raise_signal(self.requested)
            raise KeyboardInterrupt  # whoever handled it went on

    def check(self) -> None:
        """End here, if a signal has come.

        Raises:
            Interrupted: If one has.
        """
        if self.alone and self.requested is not None:
            raise Interrupted

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Return a context in which nothing is changed that counts: a signal ends it where it stands."""
        self._at_once = self.alone
        try:
            self.check()
            yield
        finally:
            self._at_once = False
        self.check()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested, self._heard = number, time.monotonic()
            _say(NAMES[signal.Signals(number)] + b": ending after this batch; Ctrl-C again leaves at once")
        elif number == signal.SIGINT and time.monotonic() - self._heard > ECHO:
            _say(b"leaving at once")
            os._exit(128 + number)
        if self._at_once:
            raise Interrupted


def _say(line: bytes) -> None:
    """Write to stderr past Python's buffers, which the signal may have found half filled."""
    os.write(2, b"\nautolora: " + line + b"\n")
