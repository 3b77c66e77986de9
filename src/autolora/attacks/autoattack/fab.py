"""The targeted Fast Adaptive Boundary attack, FAB-T (Croce and Hein, 2020): walk along the decision boundary, to x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from autolora.attacks.autoattack.margins import likeliest_wrong, targeted_margin
from autolora.attacks.autoattack.projections import to_hyperplane
from autolora.attacks.autoattack.rounds import Siblings, rounds
from autolora.attacks.climbing import by_images
from autolora.attacks.model import wrong
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.threat import ThreatModel


@dataclass(frozen=True)
class FABT:
    r"""Look for the adversarial image nearest to x, in the direction of one wrong class after the other.

    Near the iterate, :math:`f_t - f_y` is taken to be linear, so its zeros are a hyperplane. With :math:`d` and
    :math:`d_0` the shortest ways to it from the iterate :math:`x'` and from :math:`x`, within the box (Algorithm 1),

    .. math:: x' \leftarrow (1 - \alpha) (x' + \eta d) + \alpha (x + \eta d_0), \quad
              \alpha = \min \Big( \frac{\lVert d \rVert}{\lVert d \rVert + \lVert d_0 \rVert}, \alpha_{\max} \Big),

    and if that is adversarial, :math:`x' \leftarrow x + \beta (x' - x)`. An image is done with once an adversarial
    iterate lies within eps. The paper's final search, a bisection towards x, is left out, as it is in AutoAttack.

    The defaults are those of AutoAttack's standard version. The attack changes nothing about the model.

    Args:
        threat: The set S(x).
        steps: Iterations for each target, of two forward passes and one backward pass.
        targets: Wrong classes to aim at: the most likely ones at x, or all if there are fewer.
        restarts: Runs for each target; all but the first start at a random image within half of eps.
        alpha_max: The largest pull towards x, in [0, 1].
        eta: How far each step goes beyond the hyperplane, 1 being onto it.
        beta: What is kept of an adversarial perturbation, in (0, 1).

    Raises:
        InputError: If a number is out of its range.
    """

    threat: ThreatModel
    steps: int = 100
    targets: int = 9
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        for name, count in (("steps", self.steps), ("targets", self.targets), ("restarts", self.restarts)):
            if count < 1:
                raise InputError(f"{name}={count}: FAB needs at least one")
        if not 0 <= self.alpha_max <= 1:
            raise InputError(f"alpha_max={self.alpha_max}: the pull towards the image is a share, from 0 to 1")
        if not self.eta >= 1:
            raise InputError(f"eta={self.eta}: a step that stops before the boundary never crosses it; use 1 or more")
        if not 0 < self.beta < 1:
            raise InputError(f"beta={self.beta}: the share of a perturbation that is kept lies between 0 and 1")

    def __call__(
        self, victim: Victim, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attack a batch.

        Args:
            victim: Who is attacked.
            x: Natural images (N, C, H, W) in [0, 1], in float32.
            y: Labels (N,).
            generator: Source of the random starts, on the device of ``x``; one restart needs none.

        Returns:
            Images (N, C, H, W) and whether each has fallen (N,): an adversarial image in S(x) where it has, else x.
        """
        x = x.detach()
        with torch.no_grad():
            logits = victim(x)
        fallen = victim.fallen(x, y, logits)
        x_adv = x.clone()
        targets = likeliest_wrong(logits, y, self.targets).repeat_interleave(self.restarts, dim=1)
        for aim in rounds(targets, fallen, victim.most):
            starts = [self._start(x, generator) if column % self.restarts else x for column in aim.columns]
            start = torch.cat([drawn[aim.image[rows]] for drawn, rows in zip(starts, aim.parts(), strict=True)])
            run = _Run(torch.arange(len(start), device=x.device), x[aim.image], y[aim.image], aim.target, start)
            found, fell = self._walk(victim, run, Siblings(aim.image))
            for rows in aim.parts():
                image = aim.image[rows]
                new = fell[rows] & ~fallen[image]
                x_adv[image[new]], fallen[image[new]] = found[rows][new], True
        return x_adv, fallen

    def _start(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        # drawn for the whole batch, so that an image's start does not depend on which others have fallen
        if self.threat.norm == "Linf":
            noise = 2 * torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) - 1
        else:
            noise = self.threat.ascent(torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype))
        return (x + self.threat.radius / 2 * noise).clamp(0, 1)

    def _walk(self, victim: Victim, run: _Run, siblings: Siblings) -> tuple[Tensor, Tensor]:
        """Walk with the rows of a run; return where each fell, if it did (n, C, H, W), and whether it did (n,)."""
        found, fallen = run.iterate.clone(), torch.zeros_like(run.y, dtype=torch.bool)
        for _ in range(self.steps):
            if not len(run.rows):
                break
            run = run._replace(iterate=self._step(run, *_linearise(victim, run)))
            fell, adversarial = self._judge(victim, run)
            if bool(fell.any()):
                found[run.rows[fell]], fallen[run.rows[fell]] = run.iterate[fell], True
                of_use = siblings.of_use(run.rows, fell)
                run, adversarial = _Run(*(tensor[of_use] for tensor in run)), adversarial[of_use]
            nearer = run.x + self.beta * (run.iterate - run.x)
            run = run._replace(iterate=torch.where(adversarial.view(-1, 1, 1, 1), nearer, run.iterate))
        return found, fallen

    def _step(self, run: _Run, value: Tensor, grad: Tensor) -> Tensor:
        iterate, x = run.iterate, run.x
        value_at_x = value + (grad * (x - iterate)).flatten(1).sum(dim=1)
        ways = to_hyperplane(
            torch.cat([iterate, x]).flatten(1),
            torch.cat([grad, grad]).flatten(1),
            torch.cat([value, value_at_x]).nan_to_num(),
            self.threat.norm,
        ).view(2, *x.shape)
        length, length_at_x = self._length(ways[0]), self._length(ways[1])
        share = length / (length + length_at_x).clamp_min(1e-12)
        alpha = share.clamp_max(self.alpha_max).view(-1, 1, 1, 1)
        return torch.lerp(iterate + self.eta * ways[0], x + self.eta * ways[1], alpha).clamp(0, 1)

    @torch.no_grad()
    def _judge(self, victim: Victim, run: _Run) -> tuple[Tensor, Tensor]:
        """Say which iterates have fallen within eps, and which are adversarial to the search at any distance."""
        logits = victim(run.iterate)
        adversarial = wrong(logits, run.y)
        fell = adversarial & (self._length(run.iterate - run.x) <= self.threat.radius)
        fell[fell.clone()] = victim.fallen(run.iterate[fell], run.y[fell], logits[fell])
        return fell, adversarial

    def _length(self, delta: Tensor) -> Tensor:
        """Length (N,) of perturbations (N, C, H, W), in the norm of the threat model."""
        if self.threat.norm == "Linf":
            return delta.flatten(1).abs().amax(dim=1)
        # torch.norm adds up one by one on the CPU, and is off by 1e-6 of the length for images of 224 x 224; sum is not
        return delta.flatten(1).square().sum(dim=1).sqrt()


class _Run(NamedTuple):
    """The images that a run still walks with; they leave it together with all that belongs to them."""

    rows: Tensor  # where they are in the round (n,)
    x: Tensor  # natural images (n, C, H, W)
    y: Tensor  # labels (n,)
    target: Tensor  # the wrong class to walk to (n,)
    iterate: Tensor  # where they are now (n, C, H, W)


def _linearise(victim: Victim, run: _Run) -> tuple[Tensor, Tensor]:
    """Return the logit of the target minus that of the label (n,), and its gradient (n, C, H, W)."""
    iterate = run.iterate.detach().requires_grad_()
    with torch.enable_grad():
        value = targeted_margin(victim(iterate), run.y, run.target)
        grad = by_images(value.sum(), iterate)
    # where the gradient is not finite there is no direction; a zero keeps it from spreading
    return value.detach(), grad.nan_to_num(0, 0, 0)
