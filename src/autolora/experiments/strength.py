"""How much an attack asks of a model, by the key of its score. No torch here."""

from __future__ import annotations

import re


def strength(attack: str) -> tuple[bool, bool, int, int]:
    """Order attacks by how much they ask of a model: natural images first, AutoAttack last.

    Args:
        attack: ``natural``, ``pgd-K``, ``pgd-KxR`` with R restarts, ``autoattack-fast`` or ``autoattack``.
    """
    steps = re.fullmatch(r"pgd-(\d+)(?:x(\d+))?", attack)
    return (
        attack.startswith("autoattack"),
        attack == "autoattack",
        int(steps[1]) if steps else -1 if attack == "natural" else 0,
        int(steps[2] or 1) if steps else 0,
    )
