"""What AutoAttack costs: each of its attacks is begun on images that cannot fall, and its passes are counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from autolora.attacks.autoattack.ensemble import AutoAttack, Part
from autolora.attacks.victim import Victim
from autolora.experiments.planning.attack_passes import VERDICTS, Passes, begun, passes
from autolora.experiments.planning.measuring import cost_of
from autolora.experiments.searching import victim_of
from autolora.models import RobustModel, evaluating
from autolora.threat import Norm, ThreatModel

NATURAL = "natural"
LONG = 0.2  # seconds of a forward pass of the images that attacks are tried on; a CPU is as fast with fewer


@dataclass(frozen=True)
class PartCost:
    """What one attack costs an image that stands.

    Args:
        passes: Through the network.
        each: Seconds.
    """

    passes: Passes
    each: float


@dataclass(frozen=True)
class AttackCosts:
    """What AutoAttack costs an image that stands, attack by attack.

    Args:
        parts: By name, the natural verdicts first.
        mib: Peak memory, in MiB.
    """

    parts: Mapping[str, PartCost]
    mib: float

    @property
    def each(self) -> float:
        """Return the seconds of all parts."""
        return sum(part.each for part in self.parts.values())

    def of(self, attack: AutoAttack) -> AttackCosts:
        """Return the costs of those parts alone that a version has."""
        names = (NATURAL, *attack.parts())
        return AttackCosts({name: self.parts[name] for name in names}, self.mib)


def attack_costs(model: RobustModel, images: Tensor, norm: Norm, classes: int) -> AttackCosts:
    """Time the beginning of each attack, and multiply by the passes of the whole.

    At radius 0 no image falls, and what the model says is taken as the label, so that none is wrong to begin with.

    Args:
        model: A classifier; it is attacked in evaluation mode, in the precision that ``evaluate`` takes by itself.
        images: A batch (N, C, H, W) in [0, 1], as large as ``evaluate`` takes.
        norm: Of the threat model.
        classes: How many classes K.
    """
    device = images.device
    with evaluating(model), torch.no_grad():
        victim, ensemble = victim_of(model), AutoAttack(ThreatModel(0, norm))
        verdict = cost_of([(images, images[:, 0, 0, 0])], lambda x, y: victim.model(x), device)
        x = images if device.type == "cuda" else images[: max(8, int(LONG / verdict.each))]
        y = victim.model(x).argmax(dim=1)
        parts = {NATURAL: PartCost(Passes(VERDICTS, 0), VERDICTS * verdict.each)}
        peaks = [verdict.mib]
        for name, part in ensemble.parts().items():
            short = begun(part)
            whole, tried = (passes(one, classes, indirect=victim.indirect) for one in (part, short))
            cost = cost_of([(x, y)], partial(_attack, short, victim), device)
            parts[name] = PartCost(whole, cost.each * whole.total / tried.total)
            peaks.append(cost.mib)
    return AttackCosts(parts, max(peaks))


def _attack(part: Part, victim: Victim, x: Tensor, y: Tensor) -> None:
    part(victim, x, y, torch.Generator(x.device).manual_seed(0))
