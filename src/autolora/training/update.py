"""One batch: attack, loss and a step of the optimizer; in two halves where memory does not suffice for the whole."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from autolora.errors import RunError
from autolora.methods import Batch, Losses, Method
from autolora.models import RobustModel, evaluating
from autolora.models.branches import batch_norms
from autolora.models.folding import Folding
from autolora.training.forms import Forms
from autolora.training.precision import Autocast
from autolora.training.replicas import everywhere, share_statistics
from autolora.training.sharding import Shards

logger = logging.getLogger(__name__)


class NotFinite(ArithmeticError):
    """A loss is no number; nothing has been learnt from it.

    Args:
        losses: The terms, by name.
    """

    def __init__(self, losses: dict[str, float]) -> None:
        super().__init__(", ".join(f"{name} {value:.4g}" for name, value in losses.items()))


@dataclass
class Update:
    """Learn from a batch.

    A batch can be taken in parts, and is taken in two halves from when memory has not sufficed. The parts' gradients,
    weighted by their sizes, add up to that of the whole batch, since every loss is a mean over images. What does
    change: batch norm normalises, and gathers its statistics, part by part; and a method that sends one half of a
    batch through another network (TWINS) does so with each part.

    Args:
        model: What is trained.
        method: Attack and loss.
        step: The loss as a module.
        optimizer: accelerate's wrapper of the optimizer.
        accelerator: Devices and processes.
        autocast: Precision of attacks and losses.
        folding: Form of the backbone that is attacked.
        shards: How this process holds the model.
        parts: In how many pieces a batch is taken.
        forms: What of it runs compiled; None: nothing.
    """

    model: RobustModel
    method: Method
    step: nn.Module
    optimizer: Any
    accelerator: Accelerator
    autocast: Autocast
    folding: Folding
    shards: Shards
    parts: int = 1
    forms: Forms | None = None

    def __call__(self, x: Tensor, y: Tensor) -> Losses:
        """Return the terms of the loss of images (N, C, H, W) in [0, 1] and labels (N,), after a step on their sum.

        Raises:
            NotFinite: If a term is not finite; in all processes, if it is so in one.
            RunError: If memory does not suffice for half of the batch either.
        """
        self.shards.gather()
        buffers = [buffer.clone() for buffer in self.model.buffers()]  # statistics that a failed attempt may have moved
        while (losses := self._attempt(x, y)) is None:
            # no handler is open here, whose traceback would keep the tensors of the failed attempt
            with torch.no_grad():
                for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                    buffer.copy_(before)
            torch.cuda.empty_cache()
        self.shards.release()
        self.optimizer.step()
        share_statistics(self.model, self.accelerator)
        return losses

    def _attempt(self, x: Tensor, y: Tensor) -> Losses | None:
        try:
            return self._gradients(x, y)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            # several processes cannot try again: one alone would repeat exchanges that the others go on from
            if self.accelerator.num_processes > 1 or self.forms is None or not self.forms.release():
                self._halve(len(y))
            return None

    def _gradients(self, x: Tensor, y: Tensor) -> Losses:
        self.optimizer.zero_grad()
        learnt: Losses = {}
        pieces = in_parts(x, y, self.parts, self.method.fewest)
        for number, (part_x, part_y) in enumerate(pieces, start=1):
            x_adv = self._attack(part_x, part_y)
            # processes exchange what a whole batch has gathered, once
            with self.accelerator.no_sync(self.step) if number < len(pieces) else nullcontext():
                work = partial(self._learn, Batch(part_x, part_y, x_adv), len(part_y) / len(y))
                terms = work() if self.forms is None else self.forms.learn(len(part_y), self.parts, work)
            for name, term in terms.items():
                learnt[name] = learnt.get(name, torch.zeros_like(term)) + term
        return learnt

    def _learn(self, batch: Batch, share: float) -> Losses:
        """Add the gradient of a part of a batch to those before; return its share of the terms and measures."""
        with self.autocast():
            losses = self.step(batch)
        self._check(losses)
        self.accelerator.backward(share * torch.stack(list(losses.values())).sum())
        return {name: share * term.detach() for name, term in (losses | self.method.measures()).items()}

    def _attack(self, x: Tensor, y: Tensor) -> Tensor:
        with self.attacked():
            return self.method.attack(self.model, x, y)

    @contextmanager
    def attacked(self) -> Iterator[None]:
        """Hold the model in the form that attacks search: as it is now, folded, in evaluation mode, fast."""
        with evaluating(self.model), self.autocast():
            network = self.folding.network(self.model.backbone)
            form = self.model.running(network) if self.forms is None else self.forms.searching(network, self.parts)
            with form:
                yield

    def _check(self, losses: Losses) -> None:
        finite = torch.stack([term.detach() for term in losses.values()]).isfinite().all()
        if not everywhere(finite, self.accelerator):  # all of them stop, or none
            raise NotFinite({name: float(term.detach()) for name, term in losses.items()})

    def _halve(self, images: int) -> None:
        whole = f"a batch of {images} images"
        if self.accelerator.num_processes > 1 or self.parts > 1 or images < 2 * self.method.fewest:
            parts = ", in two halves" if self.parts == 2 else f", in {self.parts} parts" if self.parts > 2 else ""
            raise RunError(f"out of memory with {whole}{parts}; lower --batch-size or --image-size, or accumulate more")
        self.parts = 2
        norms = "; batch norm normalises each half by itself" if batch_norms(self.model.backbone) else ""
        logger.warning(
            f"out of memory with {whole}: from here on in two halves of {math.ceil(images / 2)}, whose gradients add "
            f"up to the batch's{norms}; a smaller --batch-size avoids this"
        )


def in_parts(x: Tensor, y: Tensor, parts: int, fewest: int = 2) -> list[tuple[Tensor, Tensor]]:
    """Return a batch in so many parts, or in as many as it has images for.

    Args:
        x: Images (N, C, H, W).
        y: Labels (N,).
        parts: How many; their sizes differ by one at most.
        fewest: Images that a part has at least.
    """
    count = max(1, min(parts, len(y) // fewest))
    return list(zip(x.tensor_split(count), y.tensor_split(count), strict=True))


def out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory did not suffice, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and should_reduce_batch_size(error)
    )
