"""A forecast beside what a finished run has recorded of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from autolora.errors import InputError
from autolora.experiments.circumstances import WORDS
from autolora.experiments.judged_files import read_result, require
from autolora.experiments.planning.forecast import Forecast
from autolora.experiments.result import METRICS


@dataclass(frozen=True)
class Record:
    """What a run has recorded of its time.

    Args:
        folder: The run folder.
        epochs: Epochs that it trained.
        seconds: All of it.
        epoch_seconds: Mean of an epoch, without its checkpoint.
        environment: Where it ran.
    """

    folder: Path
    epochs: int
    seconds: float
    epoch_seconds: float
    environment: Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """Forecast seconds beside recorded ones.

    Args:
        record: What the run took.
        epoch_seconds: Forecast of an epoch.
        seconds: Forecast of the run, for as many epochs as it trained.
        differences: What is not as it was when the run was trained, and may make it slower or faster.
    """

    record: Record
    epoch_seconds: float
    seconds: float
    differences: tuple[str, ...]

    @property
    def epoch_error(self) -> float:
        """Return by which share of the truth the forecast of an epoch is too long, or if negative too short."""
        return self.epoch_seconds / self.record.epoch_seconds - 1

    @property
    def error(self) -> float:
        """Return by which share of the truth the forecast of the run is too long, or if negative too short."""
        return self.seconds / self.record.seconds - 1

    def as_json(self) -> dict[str, Any]:
        """Return both, and the errors as shares."""
        return {
            "run": str(self.record.folder),
            "epochs_run": self.record.epochs,
            "epoch_seconds": {"recorded": self.record.epoch_seconds, "forecast": self.epoch_seconds},
            "epoch_error": self.epoch_error,
            "seconds": {"recorded": self.record.seconds, "forecast": self.seconds},
            "error": self.error,
            "differences": list(self.differences),
        }


def read_record(folder: Path) -> Record:
    """Read what a finished run has recorded.

    Raises:
        InputError: If it is not finished, or its files are damaged.
    """
    content, metrics = read_result(folder), folder / METRICS
    for names, kind in ((("epochs_run",), int), (("seconds",), int | float), (("environment",), dict)):
        require(content, folder, names, kind)
    try:
        rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        taken = fmean(float(row["seconds"]) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{metrics} does not say how long the epochs took ({error}); it is missing or damaged"
        ) from None
    if min(taken, content["seconds"], content["epochs_run"]) <= 0:
        raise InputError(f"{folder} records no time at all; it is damaged")
    return Record(folder, content["epochs_run"], content["seconds"], taken, content["environment"])


def check(forecast: Forecast, record: Record) -> Check:
    """Compare a forecast with the run that it is about."""
    differences = tuple(_differences(forecast.environment, record.environment))
    epochs = record.epochs
    return Check(record, forecast.epoch_seconds(epochs), forecast.seconds(epochs), differences)


def _differences(now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[str]:
    for name, what in WORDS.items():
        if name in then and then[name] != now.get(name):
            yield f"{what} ({then[name]} then, {now.get(name)} now)"
