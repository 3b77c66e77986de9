"""The columns of a table: what a number is, where it comes from, and how it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from autolora.errors import InputError
from autolora.experiments.config import suggestion
from autolora.experiments.loss_terms import loss_terms

Row = Mapping[str, float]  # a line of metrics.jsonl
Origin = Literal["score", "epochs", "hours", "option", "count"]


@dataclass(frozen=True)
class Metric:
    """One kind of number.

    Args:
        title: How a column is headed.
        origin: Where the number comes from: the ``score`` of an evaluation, the lines of ``epochs`` of a run, its
            ``hours``, an ``option`` of its configuration, or a ``count`` of parameters.
        fields: Of the epochs, of which the first that is there is taken, and if there are none, the terms of the loss
            are summed; of the others, the one field.
        digits: Behind the point.
        factor: What a number is multiplied by to be shown: 100 for shares, which then are in percent.
        over: Which number stands for all epochs in a table: their ``mean`` or the ``highest`` or ``last`` one.
    """

    title: str
    origin: Origin
    fields: tuple[str, ...]
    digits: int = 2
    factor: float = 1.0
    over: Literal["mean", "highest", "last"] = "mean"

    @property
    def is_share(self) -> bool:
        """Whether it is a share, shown in percent, whose differences are points."""
        return self.factor == 100

    def write(self, value: float | None, sign: str = "") -> str:
        """Write a number as it is shown, and nothing for none."""
        if value is None:
            return ""
        if self.origin == "option":
            return f"{value:{sign}g}"
        return f"{round(value, self.digits) + 0.0:{sign}.{self.digits}f}"  # + 0.0: no -0.0

    def of_epoch(self, row: Row) -> float | None:
        """Return the number of one epoch, in the unit in which it is shown; None if it was not measured."""
        found = [row[name] for name in self.fields or loss_terms([row]) if name in row]
        if not found:
            return None
        return self.factor * (found[0] if self.fields else sum(found))

    def of_epochs(self, rows: Sequence[Row]) -> float | None:
        """Return the number that stands for a run."""
        found = [value for row in rows if (value := self.of_epoch(row)) is not None]
        if not found:
            return None
        return {"mean": fmean(found), "highest": max(found), "last": found[-1]}[self.over]


def _score(name: str, title: str) -> Metric:
    return Metric(title, "score", (name,), 2, 100.0)


METRICS: dict[str, Metric] = {
    "natural": _score("natural", "SA"),
    "autoattack": _score("autoattack", "AA"),
    "autoattack-fast": _score("autoattack-fast", "AA-fast"),
    "gradient_similarity": Metric("gradient similarity, Eq. 3, 4, 8", "epochs", ("gs_eq3", "gs_eq4", "gs_eq8"), 4),
    "gs_adv_ce_vs_kl": Metric("gradient similarity, like with like", "epochs", ("gs_adv_ce_vs_kl",), 4),
    "val_natural": Metric("validation, natural", "epochs", ("val_natural",), 2, 100.0, over="highest"),
    "val_robust": Metric("validation, PGD-10", "epochs", ("val_robust",), 2, 100.0, over="highest"),
    "loss": Metric("training loss", "epochs", (), 3, over="last"),
    "hours": Metric("hours", "hours", ("seconds",), 2),
    "lr": Metric("rate", "option", ("lr",)),
    "weight_decay": Metric("weight decay", "option", ("weight_decay",)),
    "gamma": Metric("gamma", "option", ("weight_frozen",)),
    "table4_percent": Metric("parameters (%)", "count", ("table4_percent",)),
    "lora_over_total_percent": Metric("LoRA / all (%)", "count", ("lora_over_total_percent",)),
}
STEPS = re.compile(r"pgd-([0-9]+)")
MEASURED_BY_FIT = ("natural", "pgd-10")


def is_metric(name: str) -> bool:
    """Whether a name is one of a metric."""
    return name in METRICS or STEPS.fullmatch(name) is not None


def metric(name: str) -> Metric:
    """Return the metric of a name.

    Raises:
        InputError: If there is none.
    """
    if name in METRICS:
        return METRICS[name]
    if STEPS.fullmatch(name):
        return _score(name, name.upper())
    raise InputError(f"metric {name!r} is unknown{suggestion(name, [*METRICS, 'pgd-10'])}")


def attacks_to_ask(names: Sequence[str]) -> list[str]:
    """Return the attacks among metrics that `autolora evaluate` has to be asked for: all but what a run measures."""
    scores = [name for name in names if metric(name).origin == "score"]
    return [name for name in scores if name not in MEASURED_BY_FIT]
