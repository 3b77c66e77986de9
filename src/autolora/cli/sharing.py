"""A command that a launcher has started several times: one process speaks, and a signal ends all of them, once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from signal import SIG_IGN, SIGINT, SIGTERM, signal
from types import FrameType
from typing import TYPE_CHECKING

from autolora.errors import InputError

if TYPE_CHECKING:  # torch is slow to import, and help has no use for it
    from autolora.experiments.processes import Processes


def shared(device: str, work: Callable[[Processes], None]) -> None:
    """Connect with the processes that were launched together, if there are any, and work; the first speaks for all.

    Args:
        device: The option of that name: ``cpu`` keeps the processes off the GPUs.
        work: What each of them does.
    """
    from autolora.experiments.processes import disband, joined

    try:
        with joined(device) as processes:
            (work if processes.count == 1 else _in_company(work))(processes)
    except BaseException:
        disband(failed=True)
        raise
    disband()


def _in_company(work: Callable[[Processes], None]) -> Callable[[Processes], None]:
    from autolora.cli import FAILED, USAGE, ended_by
    from autolora.experiments.processes import FailedElsewhere

    def one_of_many(processes: Processes) -> None:
        for number in (SIGINT, SIGTERM):
            signal(number, _end_once)
        if not processes.first:
            logging.getLogger("autolora").setLevel(logging.ERROR)
        try:
            work(processes)
        except InputError:  # all have found it, or heard of it
            if processes.first:
                raise
            raise SystemExit(USAGE) from None
        except FailedElsewhere:
            raise SystemExit(FAILED) from None
        except KeyboardInterrupt as end:
            if processes.first:
                raise
            raise SystemExit(ended_by(end)) from None
        finally:
            _stop_listening()

    return one_of_many


def _end_once(number: int, frame: FrameType | None) -> None:
    from autolora.cli import Terminated

    _stop_listening()
    raise Terminated if number == SIGTERM else KeyboardInterrupt


def _stop_listening() -> None:
    """Ignore further signals: a terminal signals all processes, and their launcher once more when one has ended."""
    for number in (SIGINT, SIGTERM):
        signal(number, SIG_IGN)
