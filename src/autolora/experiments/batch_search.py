"""The largest batch that fits into memory: on a GPU it is tried, on a CPU, where nothing is refused, it is computed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from copy import deepcopy

import psutil
import torch
from torch import Tensor

from autolora.experiments.ingredients import Ingredients, default_batch_size
from autolora.methods import Batch, Method
from autolora.models import RobustModel, evaluating
from autolora.models.folding import Folding
from autolora.training import Optimization, Step
from autolora.training.precision import autocast_for
from autolora.training.random_state import random_state, restore_random_state
from autolora.training.update import out_of_memory

logger = logging.getLogger(__name__)

FIRST = 16
SHARE = 0.4  # of a CPU's free memory that activations may take; gradients of them, and convolutions, take as much again


def largest_batch(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest power of two from 2 to ``most`` that fits, found by doubling 16, or halving it; at least 2."""
    size = FIRST
    while size > 2 and (size > most or not fits(size)):
        size //= 2
    while size >= FIRST and 2 * size <= most and fits(2 * size):
        size *= 2
    return size


def batch_that_fits(parts: Ingredients) -> int:
    """Return the largest batch size for a run that fits, with steps enough in an epoch; leaves the model as it is."""
    most = default_batch_size(len(parts.splits.train), sys.maxsize)
    if parts.device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # or its generator would not be put back
    state = random_state()
    try:
        found = largest_batch(_on_cpu(parts) if parts.device.type == "cpu" else _on_gpu(parts), most)
    finally:
        restore_random_state(state)
    why = "fits into memory" if 2 * found <= most else "leaves steps enough in an epoch"
    logger.info(f"batch size: {found}, the largest power of two that {why}")
    return found


def _on_cpu(parts: Ingredients) -> Callable[[int], bool]:
    """Compare what the backward pass keeps of two images with the memory that is free."""
    model, method = _copies(parts)
    x, y = _images(parts, 2)
    with autocast_for(parts.precision, parts.device)():
        each = kept_bytes(lambda: method.loss(model, Batch(x, y, x))) / 2
    room = SHARE * psutil.virtual_memory().available
    return lambda images: each * -(-images // parts.config.accumulate) <= room


def kept_bytes(forward: Callable[[], object]) -> int:
    """Return the bytes of the tensors that autograd keeps for the backward pass, each memory counted once."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = forward()  # held until all is counted: freed memory would be used, and counted, again
    del kept
    return sum(sizes.values())


def _on_gpu(parts: Ingredients) -> Callable[[int], bool]:
    def fits(images: int) -> bool:
        try:
            _learn(parts, -(-images // parts.config.accumulate))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            short = True
        else:
            short = False
        torch.cuda.empty_cache()  # outside of the handler, whose traceback holds on to tensors
        return not short

    return fits


def _learn(parts: Ingredients, images: int) -> None:
    """Take two steps of training on copies, attack, loss, gradients, optimizer: in the second there is momentum."""
    model, method = _copies(parts)
    x, y = _images(parts, images)
    autocast = autocast_for(parts.precision, parts.device)
    optimizer = Optimization().optimizer([p for p in model.parameters() if p.requires_grad], 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        with evaluating(model), autocast(), model.running(Folding(model.backbone).network(model.backbone)):
            x_adv = method.attack(model, x, y)
        with autocast():
            losses = Step(model, method)(Batch(x, y, x_adv))
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()


def _copies(parts: Ingredients) -> tuple[RobustModel, Method]:
    model, method = deepcopy(parts.model), deepcopy(parts.method)
    method.prepare(model)
    model.to(parts.device)
    method.begin_training(model)
    return model, method


def _images(parts: Ingredients, count: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, *parts.model.architecture.input_size, device=parts.device)
    return x, torch.arange(count, device=parts.device) % parts.model.head.out_features
