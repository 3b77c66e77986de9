"""A step of an attack as a CUDA graph: recorded once, and replayed without the work of launching it kernel by kernel.

A graph reads and writes the memory that it was recorded with. Images and targets are copied there before the first
replay; the tensors of the network have to lie where they lay (``Folding(in_place=True)``), and a graph whose tensors
have moved is recorded anew. The first replay is compared with the steps themselves. What cannot be recorded, or comes
out otherwise, runs step by step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Step = Callable[[Tensor, Tensor, Tensor], Tensor]  # x_adv, x, target -> x_adv

WARM_UP = 3  # steps before recording, in which libraries choose their kernels and reserve what they need
OFF, FEW = 1e-3, 0.05  # pixel units, and the share of pixels that may be so far off: kernels may add in another order
MOST = 4  # graphs that are kept: each holds the memory of a forward and a backward pass


@dataclass
class _Recorded:
    graph: torch.cuda.CUDAGraph
    x_adv: Tensor
    x: Tensor
    target: Tensor
    addresses: tuple[int, ...]
    compared: bool = False


class CapturedSteps:
    """Replays the steps of attacks on a GPU."""

    def __init__(self) -> None:
        self._recorded: dict[Hashable, _Recorded] = {}
        self._failed = False

    def climb(
        self,
        step: Step,
        key: Hashable,
        tensors: Iterable[Tensor],
        images: tuple[Tensor, Tensor, Tensor],
        steps: int,
    ) -> Tensor:
        """Take so many steps.

        Args:
            step: One step; reads no other tensors than ``tensors`` and its arguments, and draws no random numbers.
            key: What it is the step of, beside the shapes: the same key, the same operations.
            tensors: What else it reads.
            images: Where to begin (N, C, H, W), natural images (N, C, H, W), and targets.
            steps: How many steps.
        """
        found = None if self._failed or not steps else self._find(step, key, tensors, images)
        if found is None:
            return _one_by_one(step, images, steps)
        for place, tensor in zip((found.x_adv, found.x, found.target), images, strict=True):
            place.copy_(tensor)
        for _ in range(steps):
            found.graph.replay()
        replayed = found.x_adv.clone()
        return replayed if found.compared else self._compared(found, replayed, _one_by_one(step, images, steps))

    def release(self) -> bool:
        """Give back the memory of all graphs, and record no more; say whether there were any."""
        held, self._failed = bool(self._recorded), True
        self._recorded.clear()
        return held

    def _find(
        self, step: Step, key: Hashable, tensors: Iterable[Tensor], images: tuple[Tensor, Tensor, Tensor]
    ) -> _Recorded | None:
        addresses = tuple(tensor.data_ptr() for tensor in tensors)
        kinds = tuple((tensor.shape, tensor.dtype, tensor.stride()) for tensor in images)
        autocast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        whole = (key, kinds, autocast)
        found = self._recorded.get(whole)
        if found is not None and found.addresses == addresses:
            return found
        if found is None and len(self._recorded) >= MOST:
            return None
        self._recorded.pop(whole, None)
        try:
            self._recorded[whole] = _record(step, images, addresses)
        except RuntimeError as error:
            self._give_up(
                "out of memory" if isinstance(error, torch.OutOfMemoryError) else str(error).partition("\n")[0]
            )
        return self._recorded.get(whole)

    def _compared(self, found: _Recorded, replayed: Tensor, expected: Tensor) -> Tensor:
        near = (replayed - expected).abs() <= OFF  # not where one of them is no number
        found.compared = float((~near).float().mean()) <= FEW
        if not found.compared:
            self._give_up("its replay gave other images")
        return expected

    def _give_up(self, why: str) -> None:
        self.release()
        logger.info(f"attack: not replayed as a CUDA graph, but run step by step: {why}")


def _one_by_one(step: Step, images: tuple[Tensor, Tensor, Tensor], steps: int) -> Tensor:
    x_adv, x, target = images
    for _ in range(steps):
        x_adv = step(x_adv, x, target)
    return x_adv


def _record(step: Step, images: tuple[Tensor, Tensor, Tensor], addresses: tuple[int, ...]) -> _Recorded:
    x_adv, x, target = (tensor.detach().clone() for tensor in images)
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside), _uncached():
        for _ in range(WARM_UP):
            step(x_adv, x, target)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # of this thread alone: another one may pin memory for the next batch meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"), _uncached():
        x_adv.copy_(step(x_adv, x, target))
    return _Recorded(graph, x_adv, x, target, addresses)


def _uncached() -> AbstractContextManager[object]:
    """Return the present autocast without its cache: a weight that was rounded before is no part of the graph."""
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    return torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False)
