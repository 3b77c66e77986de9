r"""Gradient similarity: how far two terms of a loss agree about the backbone (Xu et al., ICLR 2024, Eq. 3, 4 and 8).

For two losses of one image, and :math:`\theta_1` all parameters of the feature extractor,

.. math:: sim = \frac{\langle g, h \rangle}{|g| \, |h|}, \qquad
          g = \frac{\partial \ell_1}{\partial \theta_1}, \quad h = \frac{\partial \ell_2}{\partial \theta_1}

1 is agreement, 0 indifference, -1 contradiction. The pairs are those of ``Method.objectives``. The gradients are taken
image by image, two of them in memory at a time. ``torch.func.vmap`` over images gains nothing on a CPU, where the
gradient of a weight per image is a convolution in groups: it is several times slower for wide networks, and holds the
gradients of all its images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from autolora.errors import InputError
from autolora.evaluation import Batches
from autolora.methods import Batch, Method
from autolora.methods.base import Pair
from autolora.models import RobustModel, evaluating
from autolora.models.lowrank import LowRankUpdate
from autolora.training.epoch import Row

Estimate = Literal["image", "batch"]
Gradient = Sequence[Tensor | None]  # one entry per parameter, None where the loss does not reach it

SHORTEST = 1e-15  # of a gradient with a direction: the squares of much less are no float32 numbers


@dataclass
class GradientSimilarity:
    """What ``fit`` may call after an epoch: the mean similarity over the first training images.

    The model is in evaluation mode, the adversarial images are those of the method's own training attack, and
    everything is in float32. The random numbers are the same after every epoch, and torch's generators are put back
    afterwards, so that training is the same to the bit with and without.

    A row holds, for every pair by its name (``eq8``, ``adv_ce_vs_kl``), ``gs_NAME``, its standard error
    ``gs_NAME_se``, and ``gs_NAME_left_out``: how many images have no similarity, because one of the gradients has no
    direction (see :func:`similarity`). Without an image left the mean is absent, and with fewer than two its error.
    ``gs_images`` and ``gs_seconds`` say how many images were measured, and how long it took.

    Args:
        model: What is trained.
        method: Its attack and its pairs of losses.
        batches: Training images (N, C, H, W) in [0, 1], not augmented, and labels (N,); in the same order every time.
        every: Measure after each epoch whose number is a multiple of this.
        images: How many of the first images to measure, at most.
        seed: Seed of the attack's random numbers.
        estimate: ``"image"``: the similarity of each image, as defined. ``"batch"``: of the mean losses of each
            mini-batch, which is cheaper. That is another quantity with another expectation, since what images do not
            have in common cancels in a mean: the names begin with ``gs_batch``, and errors and what is left out count
            mini-batches.

    Raises:
        InputError: If ``every`` or ``images`` is below 1, or ``estimate`` unknown.
    """

    model: RobustModel
    method: Method
    batches: Batches
    every: int = 1
    images: int = 256
    seed: int = 0
    estimate: Estimate = "image"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"every={self.every}: the gradients are compared every 1 or more epochs; leave it out")
        if self.images < 1:
            raise InputError(f"images={self.images}: a mean needs 1 image or more, such as 256")
        if self.estimate not in get_args(Estimate):
            raise InputError(f"estimate={self.estimate!r} is unknown; use image (as defined) or batch (cheap)")

    def __call__(self, epoch: int) -> Row:
        """Measure after an epoch, counted from 1; return nothing in an epoch that is not measured."""
        if epoch % self.every:
            return {}
        started, prefix, images = time.perf_counter(), "gs" if self.estimate == "image" else "gs_batch", 0
        found: dict[str, list[float | None]] = {}
        with self._measuring():
            for batch in self._attacked():
                images += len(batch.y)
                for name, values in self._similarities(batch).items():
                    found.setdefault(name, []).extend(values)
        row: Row = {}
        for name, values in found.items():
            row |= _summary(f"{prefix}_{name.replace('-', '_')}", values)
        return row | {f"{prefix}_images": images, f"{prefix}_seconds": time.perf_counter() - started}

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """Measure in evaluation mode, in full precision, with random numbers apart from those of training."""
        devices = range(torch.cuda.device_count())  # all of them, since seeding seeds all of them
        precision = torch.autocast(self.model.head.weight.device.type, enabled=False)
        with evaluating(self.model), precision, torch.random.fork_rng(devices, device_type="cuda"):
            torch.manual_seed(self.seed)
            yield

    def _attacked(self) -> Iterator[Batch]:
        left, device = self.images, self.model.head.weight.device
        for x, y in self.batches:
            x, y = x[:left].to(device), y[:left].to(device)
            yield Batch(x, y, self.method.attack(self.model, x, y))
            left -= len(y)
            if not left:
                return

    def _similarities(self, batch: Batch) -> dict[str, list[float | None]]:
        size = 1 if self.estimate == "image" else len(batch.y)
        parameters = extractor_parameters(self.model)
        found: dict[str, list[float | None]] = {}
        # weights that are re-expressed are computed once for all images
        with _requiring_gradients(parameters), parametrize.cached():
            for start in range(0, len(batch.y), size):
                part = Batch(*(tensor[start : start + size] for tensor in batch))
                for name, pair in self.method.objectives(self.model, part).items():
                    found.setdefault(name, []).append(similarity(pair, parameters))
        return found


def extractor_parameters(model: RobustModel) -> list[nn.Parameter]:
    """Return what the feature extractor consists of, whether it trains or not.

    These are the backbone's parameters, frozen ones and those that are re-expressed (LoFT's W) too, and the affine
    copies of a branch's norms; the head and the low-rank pairs are none of them.
    """
    updates = [module for module in model.modules() if isinstance(module, LowRankUpdate)]
    pairs = {id(parameter) for update in updates for parameter in update.parameters()}
    parameters = [*model.backbone.parameters(), *model.branches.parameters()]
    return [parameter for parameter in parameters if id(parameter) not in pairs]


def similarity(pair: Pair, parameters: Sequence[nn.Parameter]) -> float | None:
    """Return the cosine of the gradients of two mean losses, or None where one of them has no direction.

    A loss of exactly 0 has none: cross entropies and divergences are 0 or more, so it is at its minimum, and what
    autograd returns is rounding. Thus natural images in place of adversarial ones do not diverge from themselves.

    Args:
        pair: Two losses (N,), 0 or more, that are functions of the parameters.
        parameters: Tensors that require gradients; their ``grad`` is left alone.
    """
    losses = [loss.mean() for loss in pair]
    if not all(loss.requires_grad and loss.item() for loss in losses):
        return None
    first, second = (torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses)
    return cosine(first, second)


def cosine(first: Gradient, second: Gradient) -> float | None:
    r"""Return :math:`\langle g, h \rangle / (|g| |h|)`, or None if a length is zero or not finite.

    It is over the tensors that both losses reach: about what only one of them uses, such as the norms of a branch
    that the other does not pass through, they cannot disagree.
    """
    shared = [(g.flatten(), h.flatten()) for g, h in zip(first, second, strict=True) if g is not None and h is not None]
    if not shared:
        return None
    dots = torch.stack([torch.stack([g @ h, g @ g, h @ h]) for g, h in shared])
    product, squared, other = dots.double().sum(dim=0).tolist()
    if not (min(squared, other) > SHORTEST**2 and math.isfinite(squared + other)):
        return None
    return product / math.sqrt(squared * other)


@contextmanager
def _requiring_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let frozen parameters take part in autograd, and freeze them again."""
    found = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, required in zip(parameters, found, strict=True):
            parameter.requires_grad_(required)


def _summary(name: str, values: Sequence[float | None]) -> Row:
    kept = [value for value in values if value is not None]
    row: Row = {name: fmean(kept)} if kept else {}
    if len(kept) > 1:
        row[f"{name}_se"] = stdev(kept) / math.sqrt(len(kept))
    return row | {f"{name}_left_out": len(values) - len(kept)}
