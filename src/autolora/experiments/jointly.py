"""A run that several processes share: one writes its folder, all agree on mistakes, and none outlives another."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from autolora.errors import InputError, RunError
from autolora.experiments.batch_search import batch_that_fits
from autolora.experiments.config import RunConfig
from autolora.experiments.faults import explained
from autolora.experiments.ingredients import Ingredients, default_batch_size
from autolora.experiments.processes import Processes, connection_lost
from autolora.experiments.run_folder import how_far, resume_command
from autolora.experiments.run_lock import locked
from autolora.training.sharding import check_divisible

APART = 2**32  # between the seeds of two processes: further than anyone counts seeds


@contextmanager
def held(folder: Path, processes: Processes, check: Callable[[], None]) -> Iterator[None]:
    """Return a context in which these processes alone work on a run folder, and in which none waits for a dead one.

    Args:
        folder: The run folder; the first process holds its lock.
        processes: Those that share the run.
        check: Looks at the folder once it is locked, in the first process.

    Raises:
        InputError: In all processes, if the folder cannot work.
        RunError: In all processes, if another run works on the folder, or one of the processes ends.
    """
    with ExitStack() as stack:

        def enter() -> None:
            if processes.first:
                with explained(folder):  # so that the others hear of it
                    stack.enter_context(locked(folder))
                    check()

        processes.agree(enter)
        try:
            yield
        except RuntimeError as error:
            if processes.count == 1 or not connection_lost(error):
                raise
            where = how_far(folder)
            go_on = f"continue with: {resume_command(folder)}" if where else "start again"
            kept = f"the run is kept {where}" if where else "nothing was kept of it yet"
            said = f" ({str(error).splitlines()[0]})" if isinstance(error, dist.DistBackendError) else ""  # NCCL's
            raise RunError(f"another of the processes has ended{said}; {kept}; {go_on}") from error


def divided(parts: Ingredients, asked: RunConfig, processes: Processes) -> Ingredients:
    """Return the ingredients with a batch size that fits and can be shared, and let each process draw its own numbers.

    Args:
        parts: What the configuration stands for.
        asked: The configuration as the user gave it.
        processes: Those that share the run.

    Raises:
        InputError: If the batch size that was asked for cannot be divided evenly, or leaves one image to a process, or
            if the processes are to hold the model in parts and cannot.
    """
    if parts.device.type == "cuda":
        _check_devices(processes)
    if parts.config.shard:
        _check_parts(parts, processes)
    size = _size(parts, asked, processes)
    _check_shares(size, len(parts.splits.train), processes.count, parts.method.fewest)
    if processes.rank:
        torch.manual_seed(parts.config.seed + APART * processes.rank)
    return replace(parts, config=replace(parts.config, batch_size=size))


def _size(parts: Ingredients, asked: RunConfig, processes: Processes) -> int:
    size, images = parts.config.batch_size, len(parts.splits.train)
    assert isinstance(size, int)
    if asked.batch_size == "auto":
        fits = min(processes.tell(batch_that_fits(parts)))
        size = min(processes.count * fits, default_batch_size(images, sys.maxsize))
    if isinstance(asked.batch_size, int) or processes.count == 1:
        return size
    return max(parts.method.fewest, size // processes.count) * processes.count


def _check_shares(size: int, images: int, count: int, fewest: int) -> None:
    if count == 1:
        return
    fits = max(fewest, min(round(size / count), images // count)) * count
    if fits > images:
        raise InputError(
            f"{images} training images are too few for {count} processes, {fewest} each at least; use fewer"
        )
    if size % count or size < fewest * count or size > images:
        raise InputError(
            f"batch-size={size} is that of all {count} processes together and cannot be divided evenly among them, "
            f"{fewest} of the {images} training images each at least; use {fits}"
        )


def _check_devices(processes: Processes) -> None:
    """Refuse more processes than GPUs on this machine, of which NCCL makes no group."""
    here, devices = int(os.environ.get("LOCAL_WORLD_SIZE", processes.count)), torch.cuda.device_count()
    if processes.count > 1 and here > devices:
        raise InputError(f"{here} processes on this machine cannot share {devices} GPUs; launch one for each at most")


def _check_parts(parts: Ingredients, processes: Processes) -> None:
    """Refuse to hold a model in parts where nothing would be gained, or where it would not be the same run."""
    config = parts.config
    if config.compile in ("attack", "on"):
        raise InputError(f"shard and compile={config.compile} do not go together; leave one of them out")
    if config.gradient_similarity:
        raise InputError("shard and gradient-similarity do not go together, which reads whole gradients; leave one out")
    if parts.precision == "fp16":
        raise InputError("shard and precision=fp16 do not go together; use bf16 or fp32")
    check_divisible(parts.model, parts.device, processes.count)
