"""The low-rank pairs that a run's options ask for, as far as their number of parameters goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autolora.methods import METHODS
from autolora.models.lowrank import Pairs

COUNTED = ("rank", "style", "targets")  # what decides how many parameters pairs have


def pairs_of(options: Mapping[str, Any]) -> Pairs | None:
    """Return the pairs of a run's method, its options over its defaults; None if it has none.

    Args:
        options: Of a run: ``method``, and ``rank`` and ``method_options`` where they are set.

    Raises:
        InputError: If no pairs can be made of the options.
    """
    method = METHODS.get(str(options["method"]))
    if not all(hasattr(method, name) for name in COUNTED):
        return None
    rank = {"rank": options["rank"]} if options.get("rank") else {}
    given = {**rank, **(options.get("method_options") or {})}
    values = {name: given.get(name, getattr(method, name)) for name in COUNTED}
    targets = values["targets"]
    return Pairs(**{**values, "targets": targets if isinstance(targets, str) else tuple(targets)})
