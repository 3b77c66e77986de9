"""Several processes that train one model too large for each of them to hold all that belongs to it (FSDP).

With torch's ``fully_shard`` every process keeps its part of the weights, of their gradients and of the momentum. The
weights are whole while a batch is worked on: an attack runs the network a dozen times, and would fetch every weight
as often. Gradients are shared out block by block as the backward pass goes (ZeRO, stage 2; Rajbhandari et al., 2020).
So AutoLoRa's and TWINS' ways through the backbone, which replace its tensors for one call, need nothing of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from autolora.errors import InputError
from autolora.models import RobustModel
from autolora.models.branches import batch_norms
from autolora.training.step import Step

ON_CPU = "2.9"  # the version of torch whose `fully_shard` does without streams


@dataclass(frozen=True)
class Shards:
    """How a process holds the model: as a whole, or its part of it.

    Args:
        model: What is trained.
        units: In which weights are gathered and given back; none if every process holds the whole model.
    """

    model: nn.Module
    units: tuple[FSDPModule, ...] = ()

    def gather(self) -> None:
        """Make the weights whole in every process; all processes have to ask for it."""
        for unit in self.units:
            unit.unshard()

    def release(self) -> None:
        """Keep this process's part of the weights alone."""
        for unit in self.units:
            unit.reshard()

    def finite(self) -> Tensor:
        """Say, as a boolean () tensor, whether all weights that this process holds are numbers."""
        return torch.stack([held_here(weight).isfinite().all() for weight in self.model.parameters()]).all()

    def weights(self) -> dict[str, Tensor]:
        """Return parameters and buffers as one process alone would have them; all processes have to ask for them."""
        self.release()
        return {name: whole(tensor) for name, tensor in self.model.state_dict().items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Give the model, strictly, parameters and buffers that are whole, of which this process keeps its part."""
        self.release()
        own = self.model.state_dict()
        self.model.load_state_dict({name: divided(tensor, own.get(name)) for name, tensor in weights.items()})


def held(step: Step, accelerator: Accelerator, shard: bool) -> tuple[nn.Module, Shards]:
    """Let the processes hold a step together: each as a whole, with gradients averaged (DDP), or each its part.

    Args:
        step: Model and method.
        accelerator: Devices and processes.
        shard: Whether each keeps its part alone; changes the step in place.

    Returns:
        What computes the loss of a batch, and how the model is held.

    Raises:
        InputError: If the model cannot be divided.
    """
    if shard:
        return step, divide(step, accelerator.device, accelerator.num_processes)
    return accelerator.prepare(step), Shards(step.model)


def divide(step: Step, device: torch.device, processes: int) -> Shards:
    """Leave each process its part of a step's weights, as the first process has them; called before the optimizer is.

    Args:
        step: Model and method; prepared, and the same in all processes but for the weights. Changed in place.
        device: Where it computes.
        processes: How many share it.

    Raises:
        InputError: If the model cannot be divided, or nobody is there to share it with.
    """
    check_divisible(step.model, device, processes)
    for parameter in step.parameters():
        parameter.data = parameter.data.contiguous()  # torch divides nothing else, such as a channels-last weight
    for tensor in (*step.parameters(), *step.buffers()):
        dist.broadcast(tensor.detach(), 0)
    mesh = init_device_mesh(device.type, (processes,))
    for block in blocks(step.model.backbone):
        fully_shard(block, mesh=mesh, reshard_after_forward=False)
    fully_shard(step, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(step, "begin")
    assert isinstance(step, FSDPModule)
    step.set_reshard_after_backward(False)
    step.begin()  # torch takes the first module to run for the outermost one, and a block may be called before a step
    shards = Shards(step.model, tuple(module for module in step.modules() if isinstance(module, FSDPModule)))
    shards.release()  # so that the model's parameters are those that an optimizer trains
    return shards


def check_divisible(model: RobustModel, device: torch.device, processes: int) -> None:
    """Refuse what processes cannot hold in parts.

    Args:
        model: What is trained.
        device: Where each process computes.
        processes: How many share the model.

    Raises:
        InputError: If there is one process, if the backbone has batch norm, whose statistics belong to whole replicas,
            or if torch is too old to divide anything on a CPU.
    """
    if processes == 1:
        raise InputError(
            "shard: one process has nobody to share a model with; launch several, as in `torchrun --nproc-per-node 2 "
            "-m autolora fit ...`, or leave it out"
        )
    if device.type == "cpu" and torch.__version__ < ON_CPU:
        raise InputError(
            f"torch {torch.__version__} divides models on GPUs alone; leave --shard out, or install {ON_CPU} or newer"
        )
    if batch_norms(model.backbone):
        raise InputError(
            f"{model.architecture.name} has batch norm, whose statistics every process gathers for itself, and cannot "
            "be divided among processes; leave --shard out, or take a transformer or a ConvNeXt"
        )


def blocks(backbone: nn.Module) -> Iterator[nn.Module]:
    """Yield the parts of a backbone that are gathered one by one, inner ones first: elements of a list of layers."""
    for module in reversed(list(backbone.modules())):
        if isinstance(module, nn.Sequential | nn.ModuleList):
            yield from (part for part in reversed(module) if _is_block(part))


def _is_block(module: nn.Module) -> bool:
    layers = not isinstance(module, nn.Sequential | nn.ModuleList) and any(True for _ in module.children())
    return layers and any(True for _ in module.parameters())


def held_here(weight: Tensor) -> Tensor:
    """Return what this process holds of a weight."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def whole(content: Any) -> Any:
    """Return tensors, in dicts, lists and tuples, as one process alone would have them; all processes have to ask."""
    if isinstance(content, DTensor):
        return content.full_tensor()
    if isinstance(content, Mapping):
        return {name: whole(item) for name, item in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(whole(item) for item in content)
    return content


def divided(value: Any, own: Any) -> Any:
    """Return a whole tensor as this process holds ``own``, without a word to the other processes."""
    if not (isinstance(own, DTensor) and isinstance(value, Tensor)):
        return value
    mesh, rows = own.device_mesh, value.to(own.device)  # `fully_shard` divides rows, as `chunk` does
    parts = rows.chunk(mesh.size())
    part = parts[mesh.get_local_rank()] if mesh.get_local_rank() < len(parts) else rows[:0]
    return DTensor.from_local(part.contiguous(), mesh, own.placements, shape=own.shape, stride=own.stride())
