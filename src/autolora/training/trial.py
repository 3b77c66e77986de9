"""Whether a piece of work that is done over and over shall run compiled: as it was asked for, or as a trial finds.

Compiling takes from seconds to minutes before it saves anything. The trial times a few calls as they are. If what is
left of the run could not pay for a short compilation even at the best, nothing is compiled; else it compiles, times a
few calls again, and keeps what is faster over the rest of the run, the warm-up counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from torch._dynamo.exc import TorchDynamoException

from autolora.errors import RunError

logger = logging.getLogger(__name__)

T = TypeVar("T")

TRIED = 6  # calls in each form; the first of them is its warm-up
MOST_SAVED = 0.4  # share of a call's time that compiling may save at the best
LEAST_WARM_UP = 20.0  # seconds that compiling takes at the least


@dataclass
class Trial:
    """One piece of work, and the form that it runs in.

    Args:
        what: Its name in messages.
        compiled: Whether it runs compiled; None: to be found out.
        left: Calls that are left of the run.
        wait: Waits for the device, so that a time is that of the work.
        clock: Seconds.
    """

    what: str
    compiled: bool | None
    left: int = 0
    wait: Callable[[], object] = lambda: None
    clock: Callable[[], float] = time.perf_counter
    _plain: list[float] = field(default_factory=list)
    _graph: list[float] = field(default_factory=list)

    def run(self, plain: Callable[[], T], graph: Callable[[], T]) -> T:
        """Do the work in the form that is chosen, or to be tried next; the two give the same but for rounding.

        Args:
            plain: Does it as it is.
            graph: Does it compiled; the first call compiles, and fails before it has changed anything, if it does.

        Raises:
            RunError: If it cannot be compiled, and is not merely tried.
        """
        self.left -= 1
        if self.compiled is False:
            return plain()
        if self.compiled:
            return graph() if self._graph else self._first(graph)
        if len(self._plain) < TRIED:
            result = self._timed(plain, self._plain)
            if len(self._plain) == TRIED:
                self._look_ahead()
            return result
        try:
            result = self._timed(graph, self._graph)
        except TorchDynamoException as error:
            self._settle(False, f"it cannot be compiled here: {_line(error)}")
            return plain()
        if len(self._graph) == TRIED:
            self._compare()
        return result

    def _first(self, graph: Callable[[], T]) -> T:
        try:
            result = self._timed(graph, self._graph)
        except TorchDynamoException as error:
            raise RunError(
                f"{self.what} cannot be compiled here: {_line(error)}; install what is missing, or train with "
                "--compile off"
            ) from error
        logger.info(f"{self.what}: compiled, first call after {self._graph[0]:.0f} s")
        return result

    def _timed(self, work: Callable[[], T], seconds: list[float]) -> T:
        self.wait()
        started = self.clock()
        result = work()
        self.wait()
        seconds.append(self.clock() - started)
        return result

    def _look_ahead(self) -> None:
        most = MOST_SAVED * self.left * median(self._plain[1:])
        if most < LEAST_WARM_UP:
            self._settle(False, f"what is left of the run could save {max(most, 0):.0f} s, less than compiling takes")

    def _compare(self) -> None:
        before, after = median(self._plain[1:]), median(self._graph[1:])
        saved, warm_up = (before - after) * self.left, self._graph[0] - after
        times = f"{1000 * before:.1f} ms as it is, {1000 * after:.1f} ms compiled after {warm_up:.0f} s"
        self._settle(saved > warm_up, f"{times}, {self.left} times to come")

    def _settle(self, compiled: bool, why: str) -> None:
        self.compiled = compiled
        logger.info(f"{self.what}: {'compiled' if compiled else 'not compiled'}: {why}")


def _line(error: Exception) -> str:
    """Return what an error of the compiler says first; the rest is for its developers."""
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)
