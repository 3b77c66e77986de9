"""The terms of the loss in the log of a run: what a line of ``metrics.jsonl`` holds beside what every log may hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autolora.methods.autolora import SEEN

ACCURACIES = ("val_natural", "val_robust")
WEIGHTS = ("lambda1", "lambda2")  # of loss terms, which hold them already
SIMILARITIES = "gs_"  # begins the names of what is measured of gradients
OTHERS = ("epoch", "lr", "seconds", "images_per_second", "waiting")
KNOWN = {*ACCURACIES, *WEIGHTS, *OTHERS, SEEN}


def loss_terms(rows: Iterable[Mapping[str, float]]) -> list[str]:
    """Return the names of the loss terms in the lines of a log, in their order; their sum was minimised."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name not in KNOWN and not name.startswith(SIMILARITIES)]
