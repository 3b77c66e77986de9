r"""Auto-PGD: projected gradient ascent that sets its own step size (Croce and Hein, ICML 2020, algorithm 1).

.. math::
    z^{(k+1)} &= \Pi_{S(x)} \bigl( x^{(k)} + \eta^{(k)} \, \mathrm{ascent}(\nabla \ell(x^{(k)})) \bigr) \\
    x^{(k+1)} &= \Pi_{S(x)} \bigl( x^{(k)} + \alpha (z^{(k+1)} - x^{(k)}) + (1 - \alpha) (x^{(k)} - x^{(k-1)}) \bigr)

The step size starts at twice the radius. At each checkpoint an image's is halved, and the image goes back to the best
point of its run, if few of the steps since the last checkpoint raised the loss, or if the best loss is what it was at
the last checkpoint although the step size was not halved there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
from torch import Generator, Tensor

from autolora.attacks.autoattack.margins import dlr, likeliest_wrong, targeted_dlr
from autolora.attacks.victim import Victim, wrong
from autolora.errors import InputError
from autolora.losses import cross_entropy_each
from autolora.threat import ThreatModel

Seen = tuple[Tensor, Tensor, Tensor]  # images or gradients (N, C, H, W), losses (N,), and which have fallen (N,)
Verdicts = tuple[Tensor, Tensor]  # images (N, C, H, W), and which have fallen (N,)
TargetedObjective = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits (N, K), labels, targets -> loss per image (N,)
Targets = Callable[[Tensor], Tensor]  # natural logits (N, K) -> the targets (N, T), one after the other
Loss = Literal["ce", "dlr"]

ALPHA = 0.75  # of algorithm 1: what the gradient has in a step, the rest is momentum
CHECKPOINTS = (22, 41, 57, 70, 80, 87, 93, 99)  # percent; p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)
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


class Run(NamedTuple):
    """Where a run is: one row of every tensor for each image that has not fallen, so that rows are dropped together."""

    row: Tensor  # (N,) of the batch that the run began with
    x: Tensor  # natural images (N, C, H, W)
    y: Tensor  # (N,)
    target: Tensor  # (N,)
    x_adv: Tensor  # current images, as all (N, C, H, W)
    grad: Tensor  # of the loss there
    loss: Tensor  # (N,) there, in float32 as all losses
    before: Tensor  # images of the last step
    best: Tensor  # images of highest loss
    best_grad: Tensor
    best_loss: Tensor
    checked_loss: Tensor  # highest loss at the last checkpoint
    step_size: Tensor  # (N, 1, 1, 1)
    halved: Tensor  # (N,) whether the last checkpoint halved the step size
    rises: Tensor  # (N,) steps since the last checkpoint that raised the loss


@dataclass(frozen=True)
class Ascent:
    """One run of algorithm 1 from given starts. What becomes of an image does not hang on the others in its batch."""

    threat: ThreatModel
    objective: TargetedObjective
    steps: int
    rho: float = 0.75

    def __call__(self, victim: Victim, x: Tensor, y: Tensor, target: Tensor, start: Tensor) -> Seen:
        """Return images (N, C, H, W), their losses (N,) and which have fallen (N,); ``start`` holds images of S(x)."""
        found, fallen = start.clone(), torch.zeros_like(y, dtype=torch.bool)
        highest = torch.full(y.shape, -torch.inf, device=x.device)

        def settle(run: Run, fell: Tensor) -> Run:
            found[run.row[fell]], fallen[run.row[fell]] = run.x_adv[fell], True
            return Run(*(field[~fell] for field in run)) if bool(fell.any()) else run

        run, windows = settle(*self._begin(victim, x, y, target, start)), checkpoints(self.steps)
        for step in range(1, self.steps + 1):
            if len(run.row) == 0:
                break
            run = settle(*self._step(victim, run, ALPHA if step > 1 else 1.0))
            if step in windows:
                run = self._control(run, windows[step])
        found[run.row], highest[run.row] = run.best, run.best_loss
        return found, highest, fallen

    def _begin(self, victim: Victim, x: Tensor, y: Tensor, target: Tensor, start: Tensor) -> tuple[Run, Tensor]:
        grad, loss, fell = self._look(victim, start, y, target)
        points, row = (start, grad, loss, start, start, grad, loss, loss), torch.arange(len(x), device=x.device)
        step_size = torch.full_like(x[:, :1, :1, :1], 2 * self.threat.radius)
        return Run(row, x, y, target, *points, step_size, torch.zeros_like(fell), torch.zeros_like(row)), fell

    def _step(self, victim: Victim, run: Run, alpha: float) -> tuple[Run, Tensor]:
        """Move, and remember the best points; say which images fell (N,)."""
        ahead = self.threat.project(run.x_adv + run.step_size * self.threat.ascent(run.grad), run.x)
        moved = run.x_adv + alpha * (ahead - run.x_adv) + (1 - alpha) * (run.x_adv - run.before)
        x_adv = self.threat.project(moved, run.x)
        grad, loss, fell = self._look(victim, x_adv, run.y, run.target)
        rises, better = run.rises + (loss > run.loss), loss > run.best_loss
        best = _choose(better, best=(x_adv, run.best), best_grad=(grad, run.best_grad), best_loss=(loss, run.best_loss))
        return run._replace(x_adv=x_adv, grad=grad, loss=loss, before=run.x_adv, rises=rises, **best), fell

    def _control(self, run: Run, window: int) -> Run:
        """Halve step sizes at a checkpoint, ``window`` steps after the last one."""
        # "at most" as in the authors' release; the paper prints "less than", and differs at 12 rises of 16 steps only
        halve = (run.rises <= self.rho * window) | (~run.halved & (run.best_loss <= run.checked_loss))
        back = _choose(halve, x_adv=(run.best, run.x_adv), grad=(run.best_grad, run.grad))
        rest = _choose(halve, loss=(run.best_loss, run.loss), step_size=(run.step_size / 2, run.step_size))
        counts = {"halved": halve, "checked_loss": run.best_loss, "rises": torch.zeros_like(run.rises)}
        return run._replace(**back, **rest, **counts)

    def _look(self, victim: Victim, x_adv: Tensor, y: Tensor, target: Tensor) -> Seen:
        """Return gradients (N, C, H, W), losses (N,) and which images fell (N,)."""
        x_adv = x_adv.detach().requires_grad_()
        with torch.enable_grad():
            logits = victim.climbed(x_adv)
            loss = self.objective(logits, y, target)
            # autograd.grad prunes the graph to the image: no weight gradient is computed or accumulated
            (grad,) = torch.autograd.grad(loss.sum(), x_adv, allow_unused=True) if loss.requires_grad else (None,)
        if grad is None:
            raise InputError(
                "the logits have no gradient by the image; take no_grad and detach out of the forward pass"
            )
        # a search in low precision may overflow where the model stands: such a point is not the best, and no way on
        loss = torch.where(loss.isfinite(), loss, -torch.inf).detach().float()
        return grad.nan_to_num(nan=0.0), loss, victim.fallen(x_adv.detach(), y, logits.detach())


def checkpoints(steps: int) -> dict[int, int]:
    """Return after which steps the step size is looked at, each with the number of steps since the last time."""
    ends = sorted({-(-percent * steps // 100) for percent in CHECKPOINTS})  # ceilings, in whole numbers
    return {end: end - last for last, end in pairwise([0, *ends])}


@torch.no_grad()
def _attack(
    ascent: Ascent, victim: Victim, x: Tensor, y: Tensor, targets: Targets, restarts: int, generator: Generator | None
) -> Verdicts:
    """Run an ascent to each target in turn on the images that have not fallen; keep the worst that was found."""
    natural = victim.model(x)
    found, fallen, highest = x.clone(), wrong(natural, y), torch.full(y.shape, -torch.inf, device=x.device)
    for target in targets(natural).repeat_interleave(restarts, dim=1).unbind(dim=1):
        # drawn for all images: where one starts does not hang on how many others have fallen
        start, left = _start(ascent.threat, x, generator), (~fallen).nonzero().squeeze(1)
        if len(left) == 0:
            break
        x_adv, loss, fell = ascent(victim, x[left], y[left], target[left], start[left])
        worse = fell | (loss > highest[left])
        found[left[worse]], highest[left[worse]], fallen[left] = x_adv[worse], loss[worse], fell
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


def _choose(which: Tensor, **pairs: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Take the first of each pair of tensors (N, ...) where the mask (N,) holds, the second elsewhere."""
    return {name: torch.where(which.view(-1, *[1] * (a.ndim - 1)), a, b) for name, (a, b) in pairs.items()}


def _check(rho: float, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name}={count}: an attack needs at least one")
    if not 0 < rho < 1:
        raise InputError(f"rho={rho} is no share of steps; give a number between 0 and 1, such as 0.75")
