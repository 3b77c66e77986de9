"""Numbers of finished runs, and of configurations that need no run."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
from autolora.experiments.suites.settings import Options
from autolora.experiments.suites.store import Store
from autolora.methods import METHODS
from autolora.models.counting import build_on_meta, count_parameters
from autolora.models.lowrank import Style

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
    """Count the parameters of the model's branch."""
    source = job.options if job.backbone is None else job.backbone.options
    style: Style = "peft" if job.options["method"] == "loft" else "loralib"
    sizes = {**source, **job.options}
    size = sizes.get("upsample_to") or sizes.get("image_size")  # of what the network sees
    targets = (job.options.get("method_options") or {}).get("targets")
    return _counts(str(source["model"]), size, int(job.options.get("rank", 8)), style, targets)[name]


@lru_cache(maxsize=64)
def _counts(model: str, image_size: int | None, rank: int, style: Style, targets: str | None) -> dict[str, float]:
    built = build_on_meta(model, classes=HEAD_CLASSES, image_size=image_size)
    return asdict(count_parameters(built, rank, style, targets))
