"""Durations as people say and type them."""

from __future__ import annotations

import re

from autolora.errors import InputError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
FORM = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")


def duration(seconds: float) -> str:
    """Write seconds as ``40 ms``, ``1.4 s``, ``12 s``, ``3 min 20 s``, ``5 h 12 min`` or ``2 d 4 h``."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for name, size, next_name, next_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {name}" + (f" {rest} {next_name}" if rest else "")
    return f"{whole} s"


def parse_duration(text: str) -> float:
    """Read ``90s``, ``30m``, ``1h30m`` or ``2d`` as seconds.

    Raises:
        InputError: If it is nothing of the kind, or no time at all.
    """
    if FORM.fullmatch(text) is None:
        raise InputError(f"budget={text!r} is no duration; write a number and a unit, such as 30m, 2h, 1h30m or 1d")
    seconds = sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    if seconds <= 0:
        raise InputError(f"budget={text!r} is no time at all; give some, such as 30m or 2h")
    return seconds
