"""A function in two processes of one job, and what each of them wrote down."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from forked import context, end_together, free_port

Work = Callable[[int, Path], None]  # rank, and the folder in which it saves RANK.pt


def in_process(work: Work, rank: int, port: int, folder: Path) -> None:
    """Be one of the two."""
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    launched |= {"OMP_NUM_THREADS": 1}  # as torchrun has it
    os.environ.update({name: str(value) for name, value in launched.items()} | {"ACCELERATE_USE_CPU": "true"})
    torch.set_num_threads(1)
    work(rank, folder)


def what_two_find(work: Work, folder: Path) -> list[dict[str, Any]]:
    """Let both come to their end, and return what each saved."""
    server, port = context(), free_port()
    processes = [server.Process(target=in_process, args=(work, rank, port, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    end_together(processes)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
