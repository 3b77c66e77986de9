"""The low-rank pairs that a run's options ask for, as far as their number of parameters goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from autolora.methods import METHODS
from autolora.models.lowrank import Style


class Pairs(NamedTuple):
    """What decides how many parameters pairs have.

    Args:
        rank: r of every pair.
        style: Form of the update.
        targets: The adapted layers, by a name or one by one; None takes those of the style's paper.
    """

    rank: int = 8
    style: Style = "loralib"
    targets: str | tuple[str, ...] | None = None


def pairs_of(options: Mapping[str, Any]) -> Pairs | None:
    """Return the pairs of a run's method, its options over its defaults; None if it has none.

    Args:
        options: Of a run: ``method``, and ``rank`` and ``method_options`` where they are set.
    """
    method = METHODS.get(str(options["method"]))
    if not all(hasattr(method, name) for name in Pairs._fields):
        return None
    rank = {"rank": options["rank"]} if options.get("rank") else {}
    given = {**rank, **(options.get("method_options") or {})}
    values = {name: given.get(name, getattr(method, name)) for name in Pairs._fields}
    targets = values["targets"]
    return Pairs(**{**values, "targets": targets if isinstance(targets, str) else tuple(targets)})
