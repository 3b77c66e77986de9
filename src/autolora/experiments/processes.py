"""Several processes that share one piece of work: who goes first, who speaks, and what one must tell the others.

``torchrun`` and ``accelerate launch`` start the same command several times, and say in environment variables which of
them a process is. What one process finds to be a mistake of the user, all must hear of before they go on
(:meth:`Processes.agree`): whoever ended alone would leave the others waiting. Who waits for a process that ends all
the same is woken up by the connection that closes.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import get_cpu_distributed_information

from autolora.errors import InputError, RunError

logger = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE = timedelta(days=30)  # a process that has done its share may wait for hours of another's work
GLANCE = 0.02  # seconds between two looks at who has come


class ToldElsewhere(InputError):
    """A mistake of the user that all processes have heard of, and that the first one reports."""


class FailedElsewhere(RunError):
    """A fault that all processes have heard of, and that the first one reports."""


class Lost(RunError):
    """A process that others waited for has ended."""


@dataclass(frozen=True)
class Processes:
    """The processes that share the work, seen from one of them. By default there is only this one.

    Args:
        rank: Number of this process, from 0.
        count: How many there are.
        local_rank: Its number on its machine.
        group: What connects them.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks to the user and writes what all have in common."""
        return self.rank == 0

    def meet(self) -> None:
        """Wait until all processes have come here. Ctrl-C ends the waiting.

        Raises:
            Lost: If one of them has ended.
        """
        if self.count == 1:
            return
        try:
            arrival = dist.barrier(group=self.group, async_op=True)
            while not arrival.is_completed():  # a barrier that blocks would not hear Ctrl-C
                time.sleep(GLANCE)
            arrival.wait()
        except RuntimeError as error:
            raise Lost("another of the processes has ended; what was judged so far is kept") from error

    def tell(self, value: T) -> list[T]:
        """Return the value that each process has brought, by rank; something small, that pickles."""
        if self.count == 1:
            return [value]
        self.meet()
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self.group)
        return values

    def agree(self, work: Callable[[], T]) -> T:
        """Do something in every process, and go on only if none has found a mistake of the user, or a fault, in it.

        Raises:
            InputError: In all processes, if one has raised it; in all but the first it is a :class:`ToldElsewhere`.
            RunError: Likewise; in all but the first it is a :class:`FailedElsewhere`.
        """
        if self.count == 1:
            return work()
        result, told = None, None
        try:
            result = work()
        except (InputError, RunError) as error:
            told = (isinstance(error, InputError), str(error))
        told = next((said for said in self.tell(told) if said is not None), None)
        if told is not None:
            raise self._reported(*told)
        return cast(T, result)

    def _reported(self, mistake: bool, text: str) -> InputError | RunError:
        if mistake:
            return InputError(text) if self.first else ToldElsewhere(text)
        return RunError(text) if self.first else FailedElsewhere(text)

    def in_turn(self, work: Callable[[], T]) -> T:
        """Do something in one process of each machine, and then in the others, for which it has filled the caches.

        Raises:
            InputError: In all processes, if one has raised it.
        """
        early = self.local_rank == 0
        before = self.agree(lambda: work() if early else None)
        after = self.agree(lambda: None if early else work())
        return cast(T, before if early else after)


@contextmanager
def joined(device: str = "auto") -> Iterator[Processes]:
    """Connect with the processes that were launched together, if there are more than this one.

    Each process gets a CUDA device of its own, where there are any and ``device`` is not ``cpu``.
    """
    launched = get_cpu_distributed_information()
    if launched.world_size == 1 and not dist.is_initialized():
        if "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ:
            logger.warning(
                "accelerate launch was asked for several processes and has started one, as it does without GPUs; for "
                "more, launch with: torchrun --nproc-per-node N -m autolora ..."
            )
        yield Processes()
        return
    if not dist.is_initialized():
        PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    # its own, whatever the default is: NCCL cannot be waited for with Ctrl-C, gives up early, and occupies the GPU
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), launched.local_rank, group)
    finally:
        dist.destroy_process_group(group)


def connection_lost(error: RuntimeError) -> bool:
    """Say whether an error of torch means that another process has ended; gloo, unlike NCCL, has no class for it."""
    if isinstance(error, RunError):
        return isinstance(error, Lost)
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def disband(*, failed: bool = False) -> None:
    """End what connects the processes, in a program that is about to end: torch warns of what is left open.

    Args:
        failed: After an error. Then NCCL's connection is left to the end of the program: to end it, it would wait for
            the others, which wait for this process, and nobody would hear of the error.
    """
    if dist.is_initialized() and not (failed and dist.get_backend() == "nccl"):
        dist.destroy_process_group()
