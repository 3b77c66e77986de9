"""Scores as an export states them: each with its attack, threat model, number of images, interval and doubts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NATURAL, AUTOATTACK = "natural", "autoattack"
STANDARD = "AA (standard)"  # how the label of the published ensemble begins


@dataclass(frozen=True)
class Measurement:
    """One accuracy on test images.

    Args:
        attack: Key of the score: ``natural``, ``pgd-10``, ``autoattack``.
        label: What the attack may be called, such as ``AA-adapted (K=5)``.
        norm: Of the threat model; empty for natural images.
        eps: Its radius as people write it; empty for natural images.
        accuracy: In [0, 1].
        correct: Images still right.
        total: Images looked at.
        ci95: Wilson's interval.
        flags: Reasons for doubt, as ``evaluation.json`` holds them.
    """

    attack: str
    label: str
    norm: str
    eps: str
    accuracy: float
    correct: int
    total: int
    ci95: tuple[float, float]
    flags: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_natural(self) -> bool:
        """Whether no attack was made."""
        return self.attack == NATURAL

    @property
    def is_standard(self) -> bool:
        """Whether this is AutoAttack as published, which leaderboards compare."""
        return self.attack == AUTOATTACK and self.label.startswith(STANDARD)

    @property
    def is_upper_bound(self) -> bool:
        """Whether it is weaker than the full ensemble, the yardstick of the field, which may break more images."""
        return self.attack not in (NATURAL, AUTOATTACK)

    @property
    def threat(self) -> str:
        """The threat model as people write it; empty for natural images."""
        return f"{self.norm} {self.eps}".strip()


def measured(
    threat_model: str, scores: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]] = ()
) -> tuple[Measurement, ...]:
    """Gather what a run and its later evaluations measured on the same test images, each score once.

    Args:
        threat_model: Of the run, such as ``"Linf 8/255"``.
        scores: Those of the run.
        evaluations: What ``evaluation.json`` of each holds: ``threat_model`` and ``scores``, or a ``curve`` of them.
    """
    found = list(_measurements(threat_model, scores))
    for evaluation in evaluations:
        norm, _, eps = evaluation["threat_model"].partition(" ")
        for point in evaluation.get("curve") or [{"eps": eps, "scores": evaluation["scores"]}]:
            found += [new for new in _measurements(f"{norm} {point['eps']}", point["scores"]) if not new.is_natural]
    # of the same score twice the later is kept, in the place of the first: an evaluation looks for doubts as well
    return tuple({(new.attack, new.label, new.threat, new.total, new.correct): new for new in found}.values())


def _measurements(threat_model: str, scores: Mapping[str, Any]) -> Iterator[Measurement]:
    norm, _, eps = threat_model.partition(" ")
    for attack, score in scores.items():
        low, high = score["ci95"]
        yield Measurement(
            attack=attack,
            label=str(score.get("label", attack)),
            norm="" if attack == NATURAL else norm,
            eps="" if attack == NATURAL else eps,
            accuracy=float(score["accuracy"]),
            correct=int(score["correct"]),
            total=int(score["total"]),
            ci95=(float(low), float(high)),
            flags=tuple(score.get("flags", ())),
        )
