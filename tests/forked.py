"""Processes that fork from one that has imported everything and computed nothing, so that each starts in milliseconds.

A process that runs tests has one such server, and what the first that asks for it wants imported is what all get:
so all ask here.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from itertools import count
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from socket import socket

# none of them may start a thread or compute: what forks from a process with threads may hang
IMPORTED = (
    "autolora.cli",
    "autolora.cli.summary",
    "autolora.data",
    "autolora.experiments.evaluating",
    "autolora.experiments.export.exporting",
    "autolora.experiments.quickstart",
    "autolora.experiments.run",
    "autolora.training",
    "torch._dynamo.repro.after_dynamo",  # with an optimizer's first step
    "torch.utils.tensorboard",  # with a run's log
)
PORTS = range(20_000, 32_000)  # below those that a system gives to whoever connects
LONG = 600  # seconds that nothing takes here, however much else is at work

_turns = count(os.getpid() * 113)


def context() -> ForkServerContext:
    """Return what makes processes, with its server at work."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(IMPORTED))
    forkserver.ensure_running()
    return found


def free_port() -> int:
    """Return a port of this machine that nobody listens on; another one each time."""
    for turn in _turns:
        port = PORTS[turn % len(PORTS)]
        with socket() as tried:
            try:
                tried.bind(("", port))
            except OSError:
                continue
        return port
    raise AssertionError("there is always a next turn")


def end_together(processes: Sequence[BaseProcess], expected: int = 0) -> None:
    """Wait until all have ended, and end the others when one has done so otherwise than expected: they may wait for it.

    Args:
        processes: They have been started.
        expected: Exit code of each.

    Raises:
        AssertionError: If one ends with another code, or is still at work after :data:`LONG`.
    """
    until = time.monotonic() + LONG
    running = list(processes)
    try:
        while running:
            assert wait([process.sentinel for process in running], until - time.monotonic()), "still at work"
            codes = [process.exitcode for process in processes]
            assert set(codes) <= {None, expected}, f"exit codes {codes}"
            running = [process for process in running if process.exitcode is None]
    finally:
        for process in processes:
            process.kill()
            process.join()
