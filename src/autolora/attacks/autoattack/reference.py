"""AutoAttack as its authors' package ``pyautoattack`` runs it: the optional extra ``autolora[reference]``, MIT licence.

The package searches, and what it found is judged here: it takes an answer for right in which the label's logit is the
first that is NaN.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from autolora.attacks.autoattack.ensemble import STANDARD_CLASSES, AutoAttack, Part
from autolora.attacks.model import Forward, wrong
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.threat import ThreatModel

PACKAGE = "pyautoattack"


def package() -> ModuleType:
    """Import the reference package.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import pyautoattack
    except ImportError as error:
        raise InputError(
            f"engine=reference needs the package {PACKAGE} ({error}); install it: pip install '.[reference]' in a "
            "clone, or uv sync --extra reference"
        ) from None
    return pyautoattack


def installed_release() -> str:
    """Return the version of the reference package.

    Raises:
        InputError: If it is not installed.
    """
    package()
    return version(PACKAGE)


@dataclass(frozen=True)
class ReferenceAutoAttack(AutoAttack):
    """The parts of :class:`AutoAttack`, each run by the reference package with its own standard parameters.

    Order, pooling and verdicts are the same: a part is shown what the parts before it left standing, and has felled an
    image if the model itself, in full precision, is wrong about what the package returns for it. The package attacks
    the model itself, never a faster form of it.

    Args:
        threat: The set S(x).
        version: Which parts.
        release: Version of the package; found out, and part of what identifies the attack.

    Raises:
        InputError: If the package is not installed.
    """

    release: str = field(default_factory=installed_release)

    def parts(self) -> dict[str, Part]:
        """Return the package's attacks by name, in order."""
        return {
            name: (ReferenceSquare if name == "square" else ReferencePart)(self.threat, name)
            for name in super().parts()
        }

    def label(self, classes: int) -> str:
        """Return what a result may be called.

        Raises:
            InputError: If there are fewer than ten classes: the package aims at nine wrong ones, and fails.
        """
        if classes < STANDARD_CLASSES:
            raise InputError(
                f"engine=reference: {PACKAGE} aims at nine wrong classes, and fails where there are {classes} classes "
                f"in all; use --engine own, which adapts the attacks and labels the result so"
            )
        return f"{super().label(classes)}, by the reference package {PACKAGE} {self.release}"


@dataclass(frozen=True)
class ReferencePart:
    """One attack of the package.

    Args:
        threat: The set S(x).
        name: The package's name of it.
    """

    threat: ThreatModel
    name: str

    def __call__(
        self, victim: Victim, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attack a batch.

        Args:
            victim: Who is attacked; its ``search`` is not used.
            x: Natural images (N, C, H, W) in [0, 1], in float32.
            y: Labels (N,).
            generator: Its first seed becomes the package's.

        Returns:
            Images (N, C, H, W) in S(x), and whether the model falls for them (N,).
        """
        seed = generator.initial_seed() if generator is not None else 0
        attack = package().AutoAttack(
            _bare(victim.model), norm=self.threat.norm, eps=self.threat.radius, seed=seed, device=x.device
        )
        attack.attacks_to_run = [self.name]
        tracing = sys.gettrace()  # one of its checks leaves no debugger in place
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            found, _ = attack.run_standard_evaluation(x.contiguous(), y, batch_size=len(x))
        sys.settrace(tracing)
        x_adv = self.threat.project(found, x)  # at most rounding: nothing outside S(x) may count
        with torch.no_grad():
            return x_adv, wrong(victim.model(x_adv), y)


class ReferenceSquare(ReferencePart):
    """The attack among them that asks for no gradient."""


def _bare(model: Forward) -> Forward:
    """Return the same function, through which ``backward`` reaches the images alone and no parameter."""

    def logits(x: Tensor) -> Tensor:
        return _ImageGradient.apply(x, model) if x.requires_grad else model(x)

    return logits


class _ImageGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Forward) -> Tensor:
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.logits = model(ctx.x)
        return ctx.logits.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # the package takes views of it, which the layout of a channels-last network would not allow
        return torch.autograd.grad(ctx.logits, ctx.x, gradients)[0].contiguous(), None
