"""Several processes that train one model: how a batch is divided among them, and what keeps their replicas the same.

Every process holds the whole model and takes its share of each batch. DistributedDataParallel averages the gradients,
which for shares of one size is the gradient of the joined batch. On GPUs batch norm normalises the joined batch; on
CPUs, for which torch has no such layer, it normalises share by share. The running statistics are averaged after every
batch, so that all replicas attack and judge the same network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import DataLoaderConfiguration
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.branches import batch_norms

OURS = "made_by_autolora"  # in accelerate's state, where a run of this package has set it up


def accelerator_for(device: torch.device, precision: str) -> Accelerator:
    """Return accelerate's view of the device and of the processes that were launched together.

    A batch of a loader is that of all processes; its size has to be a multiple of their number.

    Args:
        device: Where to compute.
        precision: ``fp32``, ``bf16`` or ``fp16``; for the last one accelerate scales the losses.
    """
    scaled = "fp16" if precision == "fp16" else "no"
    _forget_another_run(device, scaled)
    ours = not is_initialized()
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=scaled,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    if ours:
        AcceleratorState._shared_state[OURS] = True
    return accelerator


def _forget_another_run(device: torch.device, scaled: str) -> None:
    """Let this run have its own device and precision: accelerate keeps those of the first one in a process for all.

    Raises:
        InputError: If they were not set by a run of this package, but by the program around it.
    """
    if not is_initialized():
        return
    kept = AcceleratorState()
    if (kept.device.type, kept.mixed_precision) == (device.type, scaled):
        return
    if OURS not in AcceleratorState._shared_state:
        raise InputError(
            f"this program has set up accelerate for {kept.device.type} with mixed_precision={kept.mixed_precision}, "
            f"and the run is to have {device.type} with {scaled}; give it that device and precision, or run it in a "
            "process of its own"
        )
    if kept.num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)


@contextmanager
def synchronised(backbone: nn.Module, wanted: bool) -> Iterator[None]:
    """Return a context in which batch norm, in training, normalises by the joined batch of all processes.

    Each norm gives way to torch's ``SyncBatchNorm`` with the very same parameters and buffers, and takes its place
    again in the end: names, optimizer and what ships do not change. In evaluation mode the two are one function. A
    norm of timm's that holds an activation keeps it.

    Args:
        backbone: On a GPU; nothing that holds its tensors may move them meanwhile.
        wanted: Whether to do anything.
    """
    before = batch_norms(backbone) if wanted else {}
    during: dict[str, nn.Module] = {}
    for name, norm in before.items():
        during[name] = convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
    _place(backbone, during)
    try:
        yield
    finally:
        for name, norm in before.items():
            norm.train(during[name].training)
        _place(backbone, before)


def _place(backbone: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, module)


@torch.no_grad()
def share_statistics(model: nn.Module, accelerator: Accelerator) -> None:
    """Give all replicas the mean of their running statistics, in one exchange; nothing for a single process.

    The mean of the shares' variances leaves out how far their means are apart, as it is everywhere in distributed
    training without synchronised batch norm.
    """
    if accelerator.num_processes == 1:
        return
    moving = [buffer for norm in batch_norms(model).values() if norm.training for buffer in _statistics(norm)]
    if not moving:
        return
    joined = accelerator.reduce(torch.cat([buffer.flatten() for buffer in moving]), "mean")
    for buffer, mean in zip(moving, joined.split([buffer.numel() for buffer in moving]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def everywhere(holds: Tensor, accelerator: Accelerator) -> bool:
    """Say whether a condition, a boolean () tensor, holds in every process; all processes have to ask."""
    if accelerator.num_processes > 1:
        holds = accelerator.reduce(holds.float(), "mean") == 1
    return bool(holds)


def whole_shares(images: int, processes: int) -> int:
    """Return the smallest number of images, no less than this, that can be divided evenly."""
    return -(-images // processes) * processes


def _statistics(norm: nn.Module) -> list[Tensor]:
    return [buffer for buffer in norm.buffers() if buffer.is_floating_point()]
