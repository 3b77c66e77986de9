r"""One run of Auto-PGD (Croce and Hein, ICML 2020, algorithm 1): projected gradient ascent that sets its own step size.

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
from typing import NamedTuple

import torch
from torch import Tensor

from autolora.attacks.autoattack.rounds import Siblings
from autolora.attacks.climbing import by_images, gain_of
from autolora.attacks.victim import Victim
from autolora.threat import ThreatModel

Seen = tuple[Tensor, Tensor, Tensor]  # images or gradients (N, C, H, W), losses (N,), and which have fallen (N,)
TargetedObjective = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits (N, K), labels, targets -> loss per image (N,)

ALPHA = 0.75  # of algorithm 1: what the gradient has in a step, the rest is momentum
CHECKPOINTS = (22, 41, 57, 70, 80, 87, 93, 99)  # percent; p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)


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

    def __call__(
        self, victim: Victim, x: Tensor, y: Tensor, target: Tensor, start: Tensor, image: Tensor | None = None
    ) -> Seen:
        """Climb with every row; give a row up when its image has fallen in an earlier one.

        Args:
            victim: Who is attacked.
            x: Natural images (N, C, H, W).
            y: Labels (N,).
            target: What the objective aims at (N,).
            start: Images of S(x) to start from.
            image: Which image each row is of (N,); None if all are different ones.

        Returns:
            Images (N, C, H, W), their losses (N,) and which have fallen (N,).
        """
        found, fallen = start.clone(), torch.zeros_like(y, dtype=torch.bool)
        highest = torch.full(y.shape, -torch.inf, device=x.device)
        siblings = Siblings(torch.arange(len(x), device=x.device) if image is None else image)

        def settle(run: Run, fell: Tensor) -> Run:
            if not bool(fell.any()):
                return run
            found[run.row[fell]], fallen[run.row[fell]] = run.x_adv[fell], True
            of_use = siblings.of_use(run.row, fell)
            return Run(*(field[of_use] for field in run))

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
            half = logits.dtype is torch.float16
            gain = gain_of(lambda scores: self.objective(scores, y, target), logits) if half else loss.sum()
        grad = by_images(gain, x_adv)
        # a search in low precision may overflow where the model stands: such a point is not the best, and no way on
        loss = torch.where(loss.isfinite(), loss, -torch.inf).detach().float()
        return grad.nan_to_num(nan=0.0), loss, victim.fallen(x_adv.detach(), y, logits.detach())


def checkpoints(steps: int) -> dict[int, int]:
    """Return after which steps the step size is looked at, each with the number of steps since the last time."""
    ends = sorted({-(-percent * steps // 100) for percent in CHECKPOINTS})  # ceilings, in whole numbers
    return {end: end - last for last, end in pairwise([0, *ends])}


def _choose(which: Tensor, **pairs: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Take the first of each pair of tensors (N, ...) where the mask (N,) holds, the second elsewhere."""
    return {name: torch.where(which.view(-1, *[1] * (a.ndim - 1)), a, b) for name, (a, b) in pairs.items()}
