"""Processes of one job, as a launcher starts them with a command line each."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from autolora.cli import main
from forked import context, free_port

Said = tuple[int | None, str, str]


def in_process(rank: int, count: int, port: int, argv: list[str], folder: Path) -> None:
    """Be one of the processes that a launcher has started with a command line."""
    launched: dict[str, object] = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count}
    launched |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}  # as torchrun has it
    os.environ.update({name: str(value) for name, value in launched.items()} | {"HF_HUB_OFFLINE": "1"})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    main(argv)


@contextmanager
def launched(folder: Path, *commands: list[str]) -> Iterator[list[BaseProcess]]:
    """Start a process for every command line, as ranks of one job whose words go to a folder; end those left."""
    folder.mkdir(exist_ok=True)
    server, port = context(), free_port()
    processes = [
        server.Process(target=in_process, args=(rank, len(commands), port, argv, folder))
        for rank, argv in enumerate(commands)
    ]
    for process in processes:
        process.start()
    try:
        yield list(processes)
    finally:
        for process in processes:
            process.kill()
            process.join()


def outcome(folder: Path, rank: int, process: BaseProcess) -> Said:
    """Wait for the end; return the exit code and what was printed, without the progress that a bar wrote over."""
    process.join(600)
    err = (folder / f"{rank}.err").read_text()
    lines = [line.rpartition("\r")[2].strip() for line in err.splitlines()]
    return process.exitcode, (folder / f"{rank}.out").read_text(), "\n".join(lines)


def run_both(folder: Path, *commands: list[str]) -> list[Said]:
    """Let all of them come to their end."""
    with launched(folder, *commands) as processes:
        return [outcome(folder, rank, process) for rank, process in enumerate(processes)]


def wait_for(condition: Callable[[], object], processes: list[BaseProcess]) -> None:
    while not condition():
        assert all(process.is_alive() for process in processes), "see RANK.err"
        time.sleep(0.02)
