"""Numbers of finished runs, and of configurations that need no run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autolora.experiments.judged import JudgedRun, read_judged
from autolora.experiments.judged_files import Images
from autolora.experiments.result import METRICS as LINES
from autolora.experiments.suites.grid import Job
from autolora.experiments.suites.metrics import Metric, Row, metric
from autolora.experiments.suites.pairs import pairs_of
from autolora.experiments.suites.settings import Options
from autolora.experiments.suites.store import Store
from autolora.methods import METHODS
from autolora.models.counting import build_on_meta, count_parameters
from autolora.models.lowrank import Pairs

HEAD_CLASSES = 10  # of the head in both papers' tables of parameters


@dataclass(frozen=True)
class Measured:
    """A finished run and its numbers.

    Args:
        job: What was run.
        run: What its folder tells.
        rows: The lines of its ``metrics.jsonl``, one per epoch.
    """

    job: Job
    run: JudgedRun
    rows: tuple[Row, ...]

    def value(self, name: str) -> float | None:
        """Return a number in the unit in which it is shown, or None if it was not measured."""
        kind = metric(name)
        if kind.origin == "score":
            score = self.score(name)
            return None if score is None else kind.factor * score["correct"] / score["total"]
        if kind.origin == "epochs":
            return kind.of_epochs(self.rows)
        if kind.origin == "hours":
            return float(self.run.content["seconds"]) / 3600
        return planned(self.job, kind)

    def right(self, name: str) -> NDArray[np.bool_] | None:
        """Return whether the model is right on each image (N,) that it was judged on, if it was."""
        if metric(name).origin != "score":
            return None
        return self.run.samples[name].right if self.is_sampled(name) else self.run.right.get(name)

    def images(self, name: str) -> Images:
        """Return the test images, index and label, that a metric is about: all, or a sample."""
        return self.run.samples[name].images if self.is_sampled(name) else self.run.images

    @property
    def fingerprint(self) -> str:
        """Return what tells its images from those of other data."""
        return str(self.run.content["data"]["fingerprint"])

    def shares_images(self, other: Measured, name: str) -> bool:
        """Whether a metric of two runs is about the same images, of the same data and classes."""
        same_data = self.fingerprint == other.fingerprint
        same_classes = self.run.content["data"]["classes"] == other.run.content["data"]["classes"]
        return same_data and same_classes and self.images(name) == other.images(name)

    def is_sampled(self, name: str) -> bool:
        """Whether a metric was measured on a sample of the test images alone."""
        return name not in self.run.scores and name in self.run.samples

    def score(self, name: str) -> Mapping[str, Any] | None:
        """Return how many of these images the model is right on, as its file says it."""
        return self.run.samples[name].score if self.is_sampled(name) else self.run.scores.get(name)


def read_measured(job: Job, store: Store) -> Measured | None:
    """Read a run if it is finished; one that failed, or was interrupted, is never read.

    Raises:
        InputError: If its files are not what a run writes.
    """
    if store.result(job) is None:
        return None
    folder = store.path(job)
    lines = (folder / LINES).read_text(encoding="utf-8").splitlines()
    return Measured(job, read_judged(folder), tuple(json.loads(line) for line in lines))


def by_data(measured: Iterable[Measured]) -> list[list[Measured]]:
    """Return runs in groups of those that belong on the same images: with one name of the data, and one protocol."""
    groups: dict[tuple[str, str, bool], list[Measured]] = {}
    for item in measured:
        options = item.job.options
        key = (options["data"], options.get("classes", ""), item.job.selects_on_test)
        groups.setdefault(key, []).append(item)
    return list(groups.values())


def planned(job: Job, kind: Metric) -> float | None:
    """Return a number that the configuration of a run holds, or that is counted in its model."""
    name = kind.fields[0]
    if kind.origin == "count":
        return _counted(job, name)
    holders: tuple[Mapping[str, object], ...] = (job.options, job.options.get("method_options") or {})
    found = next((holder[name] for holder in holders if name in holder), _default(job.options, name))
    return float(found) if isinstance(found, int | float) else None


def _default(options: Options, name: str) -> object:
    """Return the default of an option of the method, if it has one of this name."""
    return getattr(METHODS[options["method"]], name, None)


def _counted(job: Job, name: str) -> float:
    """Count the parameters of the model's branch; of a method that has none, those of a branch of rank 8."""
    source = job.options if job.backbone is None else job.backbone.options
    sizes = {**source, **job.options}
    size = sizes.get("upsample_to") or sizes.get("image_size")  # of what the network sees
    return _counts(str(source["model"]), size, pairs_of(job.options) or Pairs())[name]


@lru_cache(maxsize=64)
def _counts(model: str, image_size: int | None, pairs: Pairs) -> dict[str, float]:
    built = build_on_meta(model, classes=HEAD_CLASSES, image_size=image_size)
    return asdict(count_parameters(built, pairs.rank, pairs.style, pairs.targets))
