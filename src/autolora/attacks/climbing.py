"""How an attack climbs: one step after another, or in a faster form that is offered for one model.

Whoever has a faster form of a model's image gradient, a compiled one or a graph that a GPU replays, lends it with
:func:`climbing`; attacks on that very model take it, and attacks on anything else do not notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from autolora.attacks.model import Forward, Objective
from autolora.errors import InputError
from autolora.threat import ThreatModel

Slope = Callable[[Tensor, Tensor], Tensor]  # images (N, C, H, W), target -> gradient of the objective by the images


@dataclass(frozen=True)
class AttackStep:
    r"""What an attack repeats: :math:`x' \leftarrow \Pi_{S(x)} (x' + \alpha \, \mathrm{ascent}(\nabla \ell))`.

    Args:
        threat: The set S(x).
        step_size: Length of the step in pixel units.
        objective: What is climbed.
    """

    threat: ThreatModel
    step_size: float
    objective: Objective

    def __call__(self, slope: Slope, x_adv: Tensor, x: Tensor, target: Tensor) -> Tensor:
        """Take one step from images (N, C, H, W) in S(x), without a graph."""
        return self.threat.project(x_adv + self.step_size * self.threat.ascent(slope(x_adv, target)), x)


Climber = Callable[[AttackStep, Tensor, Tensor, Tensor, int], Tensor]  # step, x_adv, x, target, steps -> x_adv

_LENT: ContextVar[tuple[object, Climber] | None] = ContextVar("lent", default=None)


@contextmanager
def climbing(model: Forward, climber: Climber) -> Iterator[None]:
    """Return a context in which attacks on this model, and on no other, climb as ``climber`` does."""
    token = _LENT.set((model, climber))
    try:
        yield
    finally:
        _LENT.reset(token)


def climb(model: Forward, step: AttackStep, x_adv: Tensor, x: Tensor, target: Tensor, steps: int) -> Tensor:
    """Take so many steps from ``x_adv``; in the form that is lent for the model, if there is one."""
    lent = _LENT.get()
    if lent is not None and lent[0] is model:
        return lent[1](step, x_adv, x, target, steps)
    return repeated(step, image_gradient(model, step.objective), x_adv, x, target, steps)


def repeated(step: AttackStep, slope: Slope, x_adv: Tensor, x: Tensor, target: Tensor, steps: int) -> Tensor:
    """Take one step after another. Nothing here waits for the device."""
    for _ in range(steps):
        x_adv = step(slope, x_adv, x, target)
    return x_adv


def image_gradient(model: Forward, objective: Objective) -> Slope:
    """Return the gradient of the summed objective by the images, as autograd takes it, operation by operation."""

    def slope(x_adv: Tensor, target: Tensor) -> Tensor:
        images = x_adv.detach().requires_grad_()
        with torch.enable_grad():
            gain = gain_of(lambda logits: objective(logits, target), model(images))
        return by_images(gain, images)

    return slope


def by_images(gain: Tensor, images: Tensor) -> Tensor:
    """Return the gradient of a () tensor by images (N, C, H, W).

    Raises:
        InputError: If there is none: the model's forward pass was cut off from its images.
    """
    # autograd.grad prunes the graph to the images: no weight gradient is computed or accumulated
    (grad,) = torch.autograd.grad(gain, images, allow_unused=True) if gain.requires_grad else (None,)
    if grad is None:
        raise InputError("the logits have no gradient by the image; take no_grad and detach out of the forward pass")
    return grad


def gain_of(objective: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """Return a () tensor whose gradient by the images has the direction that the objective's has, image by image.

    fp16 ends at 6e-8, and the gradient of a confident answer is smaller: rounded to nothing at the logits, it would
    never reach the image. So the slope at fp16 logits is taken in float32, and each image's brought to a largest entry
    of 1. It becomes longer, and only where it points counts.

    Args:
        objective: Logits (N, K) to a gain per image (N,).
        logits: Of the attacked images.
    """
    if logits.dtype is not torch.float16:
        return objective(logits).sum()
    slope = torch.func.grad(lambda scores: objective(scores).sum())(logits.detach().float())
    return (logits.float() * stretched(slope)).sum()


def stretched(slope: Tensor) -> Tensor:
    """Return each row of (N, D) with 1 as its largest entry in size; a row of zeros as it is."""
    return slope / slope.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
