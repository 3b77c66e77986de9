"""How a report writes numbers and names. What files and classes are called was chosen by others, maybe in malice."""

from __future__ import annotations

import re
from typing import Any

MISSING = "\u2013"  # where a number would stand
UNREADABLE = re.compile(  # what XML cannot hold, and what turns the direction of the text around it
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
TITLES = {
    "natural": "natural images (SA)",
    "autoattack": "AutoAttack (AA)",
    "autoattack-fast": "the first attacks of AutoAttack (AA-fast)",
}


def plain(value: Any) -> str:
    r"""Write a value so that it can stand in a page: control and direction characters are shown as ``\u202e``."""
    return UNREADABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(value))


def shortened(name: Any, limit: int = 20) -> str:
    """Write a name into a plot, in one line of at most ``limit`` characters; both ends of a longer one are kept."""
    text = " ".join(plain(name).split())
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head]}…{text[head + 1 - limit :]}"


def attack_title(name: str) -> str:
    """Write the key of a score in words."""
    steps = re.fullmatch(r"pgd-(\d+)(?:x(\d+))?", name)
    if steps is None:
        return TITLES.get(name, name)
    return f"PGD-{steps[1]} (RA)" if steps[2] is None else f"PGD-{steps[1]}, {steps[2]} starts (RA)"


def percent(share: float) -> str:
    """Write a share in [0, 1] in per cent."""
    return f"{share:.1%}"


def number(value: Any) -> str:
    """Write a number of a log: integers whole, others with four digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
