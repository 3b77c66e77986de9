"""Every finished run below a folder, in one list that can be sorted."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from autolora.errors import InputError
from autolora.experiments.config import suggestion
from autolora.experiments.judged import JudgedRun, read_judged
from autolora.experiments.result import RESULT
from autolora.experiments.selection import selected_on
from autolora.experiments.suites.pairs import pairs_of
from autolora.models.counting import build_on_meta, count_parameters
from autolora.models.creation import CONFIG as BUNDLE
from autolora.models.lowrank import Pairs

logger = logging.getLogger(__name__)

INSIDE = ("checkpoints", "evaluation", "model", "adapter")  # folders of a run that hold no other run
Key = tuple[bool, Any]


@dataclass(frozen=True)
class Entry:
    """A finished run.

    Args:
        data: Name of its data, and how many of their classes if they were chosen.
        method: Its method, and the options of it that were set.
        seed: Its seed.
        threat: Its threat model.
        natural: Natural accuracy (SA) in percent.
        pgd_10: Under PGD-10, in percent.
        autoattack: Under AutoAttack, in percent; None if it was not asked for, or not on the run's test images.
        autoattack_images: On how many test images; a sample of them, or all.
        seconds: How long it took.
        parameters: Of the model that it ships.
        low_rank: Of the pairs that it trained beside or on the model; None for methods without.
        selected_on: Whether its epoch was selected on validation or on test images.
        folder: Where it is.
    """

    data: str
    method: str
    seed: int
    threat: str
    natural: float | None
    pgd_10: float | None
    autoattack: float | None
    autoattack_images: int | None
    seconds: float
    parameters: int
    low_rank: int | None
    selected_on: str
    folder: str


COLUMNS: dict[str, str] = {
    "data": "data",
    "method": "method",
    "seed": "seed",
    "threat": "threat model",
    "natural": "SA (%)",
    "pgd_10": "PGD-10 (%)",
    "autoattack": "AA (%)",
    "autoattack_images": "AA images",
    "seconds": "time (s)",
    "parameters": "parameters",
    "low_rank": "low-rank",
    "selected_on": "selected on",
    "folder": "run",
}
COUNTS = ("autoattack_images", "parameters", "low_rank")
HIGH_FIRST = ("natural", "pgd_10", "autoattack")
ORDERS = {  # what `--sort` takes, and by what it sorts
    "data": "data",
    "method": "method",
    "sa": "natural",
    "pgd-10": "pgd_10",
    "aa": "autoattack",
    "time": "seconds",
    "parameters": "parameters",
}


def leaderboard(folder: Path, sort: str = "data") -> list[Entry]:
    """Return every finished run below a folder, best first.

    Args:
        folder: Where to look, at any depth.
        sort: What comes first of data, method, SA, PGD-10, AA, time, parameters; the others follow in this order.
            Accuracies fall, everything else rises.

    Raises:
        InputError: If the folder is not there, or the order is unknown.
    """
    if sort not in ORDERS:
        raise InputError(f"sort={sort!r} is unknown{suggestion(sort, ORDERS)}")
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name the one that holds the runs with --runs")
    names = [ORDERS[sort], *(name for key, name in ORDERS.items() if key != sort)]
    return sorted(_entries(folder), key=lambda entry: [_key(entry, name) for name in names])


def rows(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """Return the list as text, its heading first."""
    return [tuple(COLUMNS.values()), *(tuple(shown(entry, name) for name in COLUMNS) for entry in entries)]


def shown(entry: Entry, name: str) -> str:
    """Write one field of an entry."""
    value = getattr(entry, name)
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}" if name == "seconds" else f"{value:.2f}"
    return f"{value:,}" if name in COUNTS else str(value)


def as_json(entries: Sequence[Entry]) -> str:
    """Write the list as JSON; accuracies are in percent."""
    return json.dumps([asdict(entry) for entry in entries], indent=2, allow_nan=False) + "\n"


def as_csv(entries: Sequence[Entry]) -> str:
    """Write the list as CSV; accuracies are in percent."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(entry) for entry in entries)
    return text.getvalue()


def _key(entry: Entry, name: str) -> Key:
    """Return what a field sorts by; runs without it come last."""
    value = getattr(entry, name)
    return value is None, value if value is None or name not in HIGH_FIRST else -value


def _entries(folder: Path) -> Iterator[Entry]:
    for path in _runs(folder):
        try:
            yield _entry(path)
        except InputError as error:
            logger.warning(f"left out: {error}")


def _runs(folder: Path) -> Iterator[Path]:
    """Yield the folders that hold a result; a run may hold another, such as quickstart's control."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in INSIDE and not name.startswith("."))
        if RESULT in files:
            yield Path(place)


def _entry(path: Path) -> Entry:
    run = read_judged(path)
    config, data = run.config, run.content["data"]
    some = f" ({len(data['classes'])} classes)" if config.get("classes") else ""
    schedule = "" if config["schedule"] == "auto" else f", {config['schedule']}"
    parameters, low_rank = _counts(path, config)
    scores = {**{name: sample.score for name, sample in run.samples.items()}, **run.scores}
    autoattack = _percent(scores, "autoattack")
    return Entry(
        data=Path(str(config["data"])).name + some,
        method=f"{config['method']}{_options(run)}{schedule}",
        seed=run.seed,
        threat=run.threat,
        natural=_percent(run.scores, "natural"),
        pgd_10=_percent(run.scores, "pgd-10"),
        autoattack=autoattack,
        autoattack_images=None if autoattack is None else int(scores["autoattack"]["total"]),
        seconds=float(run.content["seconds"]),
        parameters=parameters,
        low_rank=low_rank,
        selected_on=selected_on(data.get("notes", ()), str(run.content.get("selected_on", "val"))),
        folder=str(path),
    )


def _options(run: JudgedRun) -> str:
    """Write the options of a run's method that are not at their defaults."""
    own = {name: value for name, value in run.recipe.items() if name == "rank" or name.startswith("method_options.")}
    text = {name: f"{value:g}" if isinstance(value, float) else value for name, value in own.items()}
    return "".join(f" {name.removeprefix('method_options.')}={value}" for name, value in text.items())


def _percent(scores: Mapping[str, Any], name: str) -> float | None:
    return 100 * scores[name]["correct"] / scores[name]["total"] if name in scores else None


def _counts(path: Path, config: Mapping[str, Any]) -> tuple[int, int | None]:
    """Count the parameters of what a run ships, and of its pairs."""
    description = path / "model" / BUNDLE
    if not description.is_file():
        raise InputError(f"{path} has no model/config.json; it is not the result of a run of this package")
    pairs = pairs_of(config)
    total, in_pairs = _count(str(path), description.stat().st_mtime_ns, pairs or Pairs())
    return total, None if pairs is None else in_pairs


@lru_cache(maxsize=512)
def _count(path: str, _: int, pairs: Pairs) -> tuple[int, int]:
    classes = json.loads((Path(path) / "model" / BUNDLE).read_text(encoding="utf-8"))["num_classes"]
    counts = count_parameters(build_on_meta(path, classes=classes), pairs.rank, pairs.style, pairs.targets)
    return counts.total_params, counts.lora_params
