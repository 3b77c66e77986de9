"""APGD (Croce and Hein, ICML 2020): Auto-PGD on the cross entropy, on the difference of logits ratio, and targeted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from autolora.attacks.autoattack.ascent import Ascent, TargetedObjective
from autolora.attacks.autoattack.margins import dlr, likeliest_wrong, targeted_dlr
from autolora.attacks.autoattack.rounds import rounds
from autolora.attacks.model import wrong
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.losses import cross_entropy_each
from autolora.threat import ThreatModel

Verdicts = tuple[Tensor, Tensor]  # images (N, C, H, W), and which have fallen (N,)
Targets = Callable[[Tensor], Tensor]  # natural logits (N, K) -> the targets (N, T), one after the other
Loss = Literal["ce", "dlr"]

OBJECTIVES: dict[Loss, TargetedObjective] = {
    "ce": lambda logits, y, _: cross_entropy_each(logits, y),
    "dlr": lambda logits, y, _: dlr(logits, y),
}


@dataclass(frozen=True)
class APGD:
    """Auto-PGD that climbs one loss: APGD-CE and APGD-DLR. It changes no mode, buffer or parameter gradient.

    Args:
        threat: The set S(x).
        loss: ``"ce"`` (cross entropy) or ``"dlr"`` (difference of logits ratio; the logit margin between two classes).
        steps: Gradient steps of a run.
        restarts: Independent runs.
        rho: Share of steps since the last checkpoint that must raise the loss, for the step size to stay.

    Raises:
        InputError: If ``steps`` or ``restarts`` is below one, ``rho`` outside (0, 1), or ``loss`` unknown.
    """

    threat: ThreatModel
    loss: Loss = "ce"
    steps: int = 100
    restarts: int = 1
    rho: float = 0.75

    def __post_init__(self) -> None:
        if self.loss not in get_args(Loss):
            raise InputError(f"loss={self.loss!r} is unknown; use one of {', '.join(get_args(Loss))}")
        _check(self.rho, steps=self.steps, restarts=self.restarts)

    def __call__(self, victim: Victim, x: Tensor, y: Tensor, generator: Generator | None = None) -> Verdicts:
        """Attack images (N, C, H, W) in [0, 1] with labels (N,).

        All random numbers come from ``generator``, on the images' device, or else from the global one.

        Returns:
            Images of S(x), and which of them the model gets wrong (N,); of the others, those of highest loss.

        Raises:
            InputError: If there are fewer than two classes, or the logits have no gradient.
        """
        ascent = Ascent(self.threat, OBJECTIVES[self.loss], self.steps, self.rho)
        # one target, which these losses do not look at
        return _attack(ascent, victim, x, y, lambda z: likeliest_wrong(z, y, 1), self.restarts, generator)


@dataclass(frozen=True)
class APGDT:
    """Auto-PGD on the targeted DLR loss, towards the wrong classes that the model finds likeliest at the natural image.

    Args:
        threat: The set S(x).
        steps: Gradient steps of a run.
        targets: Most wrong classes to try, one after the other; of K classes there are K - 1.
        restarts: Independent runs per target.
        rho: As for :class:`APGD`.

    Raises:
        InputError: If ``steps``, ``targets`` or ``restarts`` is below one, or ``rho`` outside (0, 1).
    """

    threat: ThreatModel
    steps: int = 100
    targets: int = 9
    restarts: int = 1
    rho: float = 0.75

    def __post_init__(self) -> None:
        _check(self.rho, steps=self.steps, targets=self.targets, restarts=self.restarts)

    def __call__(self, victim: Victim, x: Tensor, y: Tensor, generator: Generator | None = None) -> Verdicts:
        """Attack a batch; arguments, result and errors are those of :class:`APGD`."""
        ascent = Ascent(self.threat, targeted_dlr, self.steps, self.rho)
        return _attack(ascent, victim, x, y, lambda z: likeliest_wrong(z, y, self.targets), self.restarts, generator)


@torch.no_grad()
def _attack(
    ascent: Ascent, victim: Victim, x: Tensor, y: Tensor, targets: Targets, restarts: int, generator: Generator | None
) -> Verdicts:
    """Run an ascent to each target in turn on the images that have not fallen; keep the worst that was found."""
    natural = victim.model(x)
    found, fallen, highest = x.clone(), wrong(natural, y), torch.full(y.shape, -torch.inf, device=x.device)
    for aim in rounds(targets(natural).repeat_interleave(restarts, dim=1), fallen, victim.most):
        # drawn for all images: where one starts does not hang on how many others have fallen
        starts = [_start(ascent.threat, x, generator) for _ in aim.columns]
        start = torch.cat([drawn[aim.image[rows]] for drawn, rows in zip(starts, aim.parts(), strict=True)])
        x_adv, loss, fell = ascent(victim, x[aim.image], y[aim.image], aim.target, start, aim.image)
        for rows in aim.parts():
            image = aim.image[rows]
            worse = ~fallen[image] & (fell[rows] | (loss[rows] > highest[image]))
            found[image[worse]], highest[image[worse]] = x_adv[rows][worse], loss[rows][worse]
            fallen[image] |= fell[rows]
    if victim.indirect and not bool(fallen.all()):  # the model has not seen what the search took for right
        fallen |= wrong(victim.model(found), y)
    return found, fallen


def _start(threat: ThreatModel, x: Tensor, generator: Generator | None) -> Tensor:
    """Draw a point of the ball's surface for each image (N, C, H, W), as the authors' release does."""
    if threat.norm == "Linf":
        direction = 2 * torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) - 1
        direction = direction / direction.abs().amax(dim=(1, 2, 3), keepdim=True)
    else:
        direction = threat.ascent(torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype))
    return threat.project(x + threat.radius * direction, x)


def _check(rho: float, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name}={count}: an attack needs at least one")
    if not 0 < rho < 1:
        raise InputError(f"rho={rho} is no share of steps; give a number between 0 and 1, such as 0.75")
