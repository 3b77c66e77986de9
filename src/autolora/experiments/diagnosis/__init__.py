"""What the doctor found: a named check, how serious it is, the numbers, and what to do about it. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "note", "problem"]
FIRST = 3  # names or pairs that a sentence lists; JSON has all of them


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Args:
        name: Of the check, such as ``label-order``.
        status: ``problem`` makes a result worthless, ``note`` is worth knowing, ``ok`` is neither.
        found: What was found, with numbers.
        advice: What to do; empty where nothing is to be done.
        details: All of it for machines: numbers, names, pairs.
    """

    name: str
    status: Status
    found: str
    advice: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the finding as ``--json`` prints it."""
        return {
            "name": self.name,
            "status": self.status,
            "found": self.found,
            "advice": self.advice,
            "details": dict(self.details),
        }


@dataclass(frozen=True)
class Diagnosis:
    """All that the doctor found.

    Args:
        model: As the user named it.
        data: As the user named it.
        threat: Norm and eps, such as ``Linf 8/255``.
        images: Which images the model was judged on, such as ``1000 test images``.
        findings: In the order of the checks.
    """

    model: str
    data: str
    threat: str
    images: str
    findings: Sequence[Finding]

    def named(self, status: Status) -> list[str]:
        """Return the names of the checks that ended so."""
        return [finding.name for finding in self.findings if finding.status == status]

    @property
    def verdict(self) -> str:
        """Return one sentence on all of them."""
        problems, notes = self.named("problem"), self.named("note")
        also = f"; worth a look: {', '.join(notes)}" if notes else ""
        if not problems:
            return f"Nothing that makes a result worthless was found in {len(self.findings)} checks{also}."
        count = "One problem makes" if len(problems) == 1 else f"{len(problems)} problems make"
        return f"{count} a result worthless, and must be mended first: {', '.join(problems)}{also}."

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "model": self.model,
            "data": self.data,
            "threat_model": self.threat,
            "images": self.images,
            "verdict": self.verdict,
            "problems": self.named("problem"),
            "notes": self.named("note"),
            "checks": [finding.as_json() for finding in self.findings],
        }


def first(items: Sequence[str]) -> str:
    """Return the first items with commas, and how many more there are."""
    more = f" and {len(items) - FIRST} more" if len(items) > FIRST else ""
    return ", ".join(items[:FIRST]) + more
