"""The ensemble: four attacks in a fixed order, each on the images that the ones before it left standing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from autolora.attacks.autoattack.apgd import APGD, APGDT
from autolora.attacks.autoattack.fab import FABT
from autolora.attacks.autoattack.square import Square
from autolora.attacks.model import Forward, wrong
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.threat import ThreatModel

Version = Literal["standard", "fast"]
STANDARD_CLASSES = 10  # from here on every part is as published; with fewer, targets and losses have to be adapted
NATURAL, STANDING = 0, -1  # what felled an image, in Falls.by: nothing had to, or nothing could


class Part(Protocol):
    """One attack of the ensemble."""

    def __call__(
        self, victim: Victim, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return images (N, C, H, W) of S(x), and which of them (N,) the victim has fallen for."""


class Falls(NamedTuple):
    """What an ensemble did to a batch."""

    x_adv: Tensor  # (N, C, H, W) in S(x): the image that was fallen for, or the natural one
    by: Tensor  # (N,) int64: NATURAL (wrong without an attack), STANDING, or the number of the part, from 1


def on_nothing(part: str, left: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class AutoAttack:
    """AutoAttack (Croce and Hein, 2020), for any number of classes.

    ``"standard"`` is what the name stands for: APGD on the cross entropy, targeted APGD on the difference of logits
    ratio, targeted FAB, Square; 100 steps each and 9 targets, 5,000 queries. With fewer than ten classes some of it
    does not exist: there are K - 1 targets, and with two or three classes other losses (``margins``). The result is
    then labelled as adapted.

    ``"fast"`` is its first two parts alone. What they leave standing is an upper bound of robust accuracy.

    Args:
        threat: The set S(x).
        version: Which parts.

    Raises:
        InputError: If the version is unknown.
    """

    threat: ThreatModel
    version: Version = "standard"

    def __post_init__(self) -> None:
        if self.version not in get_args(Version):
            raise InputError(f"version={self.version!r} is unknown; use {' or '.join(get_args(Version))}")

    def parts(self) -> dict[str, Part]:
        """Return the attacks by name, in order. Each takes as many targets as there are, up to nine."""
        first: dict[str, Part] = {"apgd-ce": APGD(self.threat), "apgd-t": APGDT(self.threat)}
        if self.version == "fast":
            return first
        return first | {"fab-t": FABT(self.threat), "square": Square(self.threat)}

    def label(self, classes: int) -> str:
        """Return what a result may be called."""
        adapted = "" if classes >= STANDARD_CLASSES else f"-adapted (K={classes})"
        if self.version == "fast":
            return f"AA-fast{adapted}: apgd-ce and apgd-t, an upper bound"
        return f"AA{adapted}" if adapted else "AA (standard)"

    @torch.no_grad()
    def __call__(
        self,
        model: Forward | Victim,
        x: Tensor,
        y: Tensor,
        *,
        seed: int = 0,
        on_part: Callable[[str, int], None] = on_nothing,
    ) -> Falls:
        """Attack a batch; the same seed, images and model give the same answer.

        Args:
            model: Images in [0, 1] to logits, in evaluation mode.
            x: Natural images (N, C, H, W) in [0, 1].
            y: Labels (N,).
            seed: Of every part's random numbers.
            on_part: Called with the name of a part that begins, and how many images are left for it.
        """
        victim = model if isinstance(model, Victim) else Victim(model)
        victim = replace(victim, most=max(victim.most, len(x)))  # what fits now fits when few are left, too
        found, by = x.clone(), torch.full_like(y, STANDING)
        by[wrong(victim.model(x), y)] = NATURAL
        for number, (name, part) in enumerate(self.parts().items(), start=1):
            left = (by == STANDING).nonzero().flatten()
            on_part(name, len(left))
            if not len(left):
                break
            generator = torch.Generator(x.device).manual_seed(1000 * seed + number)
            x_adv, fallen = part(victim, x[left], y[left], generator)
            found[left[fallen]] = x_adv[fallen]
            by[left[fallen]] = number
        return Falls(found, by)
