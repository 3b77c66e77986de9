"""Projected gradient descent (Madry et al., 2018), for training and for evaluation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from autolora.attacks.climbing import AttackStep, climb
from autolora.attacks.model import Forward, Objective, wrong
from autolora.errors import InputError
from autolora.losses import cross_entropy_each
from autolora.threat import ThreatModel

Start = Literal["uniform", "gaussian", "natural"]
STEPS = re.compile(r"pgd-([0-9]+)")  # the name of an attack of so many steps


@dataclass(frozen=True)
class PGD:
    r"""Climb the loss by projected steps of fixed length, from a start in S(x).

    .. math:: x'_{t+1} = \Pi_{S(x)} (x'_t + \alpha \, \mathrm{ascent}(\nabla_{x'_t} \ell(f(x'_t), y)))

    The attack changes nothing about the model: no mode, buffer or parameter gradient. Call it on a model in the mode
    that shall be attacked; that is evaluation mode everywhere in this package.

    Args:
        threat: The set S(x).
        steps: Gradient steps; 0 returns the start.
        step_size: Length of a step in pixel units.
        start: ``"uniform"`` (in the ball), ``"gaussian"`` (0.001 N(0, 1), as TRADES does) or ``"natural"`` (x itself).
        restarts: Independent runs; each image keeps its run of highest loss, among those that fool the model if any do.

    Raises:
        InputError: If ``steps`` is negative, ``step_size`` not positive, ``restarts`` below one, or ``start`` unknown.
    """

    threat: ThreatModel
    steps: int = 10
    step_size: float = 2 / 255
    start: Start = "uniform"
    restarts: int = 1

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"steps={self.steps}: an attack takes 0 or more steps")
        if self.step_size <= 0:
            raise InputError(f"step_size={self.step_size}: a step has a positive length, such as 2/255")
        if self.restarts < 1:
            raise InputError(f"restarts={self.restarts}: an attack runs at least once")
        if self.start not in get_args(Start):
            raise InputError(f"start={self.start!r} is unknown; use one of {', '.join(get_args(Start))}")

    def __call__(self, model: Forward, x: Tensor, target: Tensor, objective: Objective = cross_entropy_each) -> Tensor:
        """Attack a batch.

        Args:
            model: Images in [0, 1] to logits.
            x: Natural images (N, C, H, W) in [0, 1].
            target: What the objective compares logits with: labels (N,), or natural logits (N, K) for ``kl_each``.
            objective: What to climb; per image (N,) if there is more than one restart.

        Returns:
            Adversarial images (N, C, H, W) in S(x), without a graph.

        Raises:
            InputError: If the logits have no gradient by the images, or there are restarts and the objective does not
                give one loss per image.
        """
        x = x.detach()
        best = self._climb(model, x, target, objective)
        if self.restarts == 1:
            return best
        best_fooled, best_loss = _severity(model, best, target, objective)
        for _ in range(self.restarts - 1):
            x_adv = self._climb(model, x, target, objective)
            fooled, loss = _severity(model, x_adv, target, objective)
            better = torch.where(fooled == best_fooled, loss > best_loss, fooled)
            best = torch.where(better.view(-1, 1, 1, 1), x_adv, best)
            best_fooled, best_loss = best_fooled | fooled, torch.where(better, loss, best_loss)
        return best

    def _climb(self, model: Forward, x: Tensor, target: Tensor, objective: Objective) -> Tensor:
        step = AttackStep(self.threat, self.step_size, objective)
        return climb(model, step, self._begin(x), x, target, self.steps)

    def _begin(self, x: Tensor) -> Tensor:
        if self.start == "uniform":
            return self.threat.sample(x)
        if self.start == "gaussian":
            return self.threat.project(x + 1e-3 * torch.randn_like(x), x)
        return x.clone()


@torch.no_grad()
def _severity(model: Forward, x_adv: Tensor, target: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Return what orders the restarts of an image: first whether the model is fooled (N,), then the loss (N,)."""
    logits = model(x_adv)
    loss = objective(logits, target)
    if loss.shape != (len(x_adv),):
        raise InputError("restarts need an objective with one loss per image; pass reduction='none'")
    labels = target if target.ndim == 1 else target.argmax(dim=1)
    return wrong(logits, labels), torch.nan_to_num(loss.float(), nan=torch.finfo(torch.float32).max)


def parse_attack(name: str, threat: ThreatModel, step_size: float | None = None, start: Start = "uniform") -> PGD:
    """Read an attack by name: ``pgd-K`` (K steps) or ``one-step`` (Wong et al., 2020: one step of 1.25 eps).

    The default length of a PGD step is eps / 4, which is 2/255 at 8/255 as in the papers, and stays in proportion at
    other radii and in L2.

    Raises:
        InputError: If the name is neither.
    """
    if name == "one-step":
        return PGD(threat, steps=1, step_size=_length(step_size, 1.25 * threat.radius), start="uniform")
    match = STEPS.fullmatch(name)
    if match is None:
        raise InputError(f"attack {name!r} is unknown; use pgd-K with K steps, such as pgd-10, or one-step")
    return PGD(threat, steps=int(match[1]), step_size=_length(step_size, threat.radius / 4), start=start)


def _length(given: float | None, default: float) -> float:
    """Return a step's length; at radius 0, where the default is none, any length leads back to the image."""
    return given if given is not None else default or 1.0
