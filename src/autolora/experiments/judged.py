"""Finished runs as their folders tell of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autolora.errors import InputError
from autolora.evaluation import Score
from autolora.experiments.config import IMMATERIAL, RunConfig, config_from
from autolora.experiments.judged_files import (
    Images,
    Right,
    check_scores,
    read_json,
    read_result,
    read_verdicts,
    require,
)
from autolora.experiments.one_form import flat, in_one_form
from autolora.experiments.result import EVALUATION as EVALUATION
from autolora.experiments.result import RESULT
from autolora.experiments.result import VERDICTS as VERDICTS

EVALUATIONS = "evaluation"  # the folder of a run that holds its evaluations, its own and later ones below it
HELD_OUT = "there is no test split"  # how the note begins that test images were drawn, which is by the seed
DRAWN = "the data came without a test split, so that the seed chose the test images"
NO_RECIPE = (*IMMATERIAL, "seed", "data")  # where data lay is no part of it: their fingerprint says what they are
REQUIRED: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("config", "method"), str),
    (("config", "seed"), int),
    (("data", "classes"), list),
    (("data", "fingerprint"), str),
    (("threat_model", "norm"), str),
    (("threat_model", "eps"), str),
    (("threat_model", "radius"), float | int),
    (("scores",), dict),
)


@dataclass(frozen=True)
class Sampled:
    """What a later evaluation found out about some of a run's test images.

    Args:
        images: Index and label of each, as written.
        score: How many the model is right on.
        right: Whether it is, (N,).
    """

    images: Images
    score: Mapping[str, Any]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class JudgedRun:
    """A finished run with its verdict on every test image.

    Args:
        folder: The run folder.
        content: What its ``result.json`` holds.
        config: Every option, those that the run's version did not know yet at their defaults.
        images: Index and label of every test image, as written.
        scores: By metric, of the run and of later evaluations on the same images under the same threat model.
        right: By metric, whether the model is right on each of them, (N,).
        unused: Metrics of other later evaluations, and why they are not among the scores.
        samples: Of these the ones on some of the test images, by metric.
    """

    folder: Path
    content: Mapping[str, Any]
    config: Mapping[str, Any]
    images: Images
    scores: Mapping[str, Any]
    right: Right
    unused: Mapping[str, str]
    samples: Mapping[str, Sampled] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Return the seed."""
        return int(self.config["seed"])

    @property
    def recipe(self) -> dict[str, Any]:
        """Return the options that make two runs the same but for chance, in one form.

        Raises:
            InputError: If they are none.
        """
        try:
            known = {item.name: self.config[item.name] for item in fields(RunConfig) if item.name in self.config}
            values = in_one_form(config_from(known))
        except InputError as error:
            raise InputError(f"{self.folder / RESULT}, config: {error}") from None
        more = {name: value for name, value in self.config.items() if name not in known}  # of a later version
        return {name: value for name, value in {**flat(values), **more}.items() if name not in NO_RECIPE}

    @property
    def threat(self) -> str:
        """Return the threat model as people write it."""
        return f"{self.content['threat_model']['norm']} {self.content['threat_model']['eps']}"

    def score(self, metric: str) -> Score:
        """Count the test images that the model is right on."""
        return Score(int(self.right[metric].sum()), len(self.images))

    def lack(self, metric: str) -> str | None:
        """Say what is missing for a metric to be compared, if something is."""
        if metric not in self.scores:
            return self.unused.get(metric, f"{self.folder} has no score for it")
        if metric in self.right:
            return None
        if (sampled := self.scores[metric].get("total", 0)) < len(self.images):
            return f"{self.folder} was tried on a sample of {sampled} images, and all {len(self.images)} are compared"
        return f"{self.folder} has no verdicts for it in {EVALUATIONS}/{VERDICTS}"

    def shares_images(self, other: JudgedRun) -> bool:
        """Whether the test images of two runs on the same data are the same: of one seed, or given with the data."""
        return self.seed == other.seed or not (self.drawn_images or other.drawn_images)

    @property
    def drawn_images(self) -> str | None:
        """Say why another seed may have other test images, if it may."""
        drawn = has_drawn_images(self.content["data"])
        if drawn is None:
            return f"{self.folder / RESULT} does not say whether the data came with a test split"
        return DRAWN if drawn else None


def has_drawn_images(data: Mapping[str, Any]) -> bool | None:
    """Say whether the seed drew the test images of a run; None if it does not say.

    Args:
        data: The block of ``result.json``.
    """
    notes, split = data.get("notes"), data.get("test_split")
    if split is not None:
        return bool(split != "given")
    if not isinstance(notes, list):
        return None
    return any(str(note).startswith(HELD_OUT) for note in notes)  # a run of before it was recorded


def stranger(about: Mapping[str, Any], fingerprint: Any, image_size: Any) -> str | None:
    """Say what keeps an evaluation from being one of the images that a run was made for, if anything does.

    Args:
        about: Its circumstances, as far as it tells them.
        fingerprint: Of the run's images.
        image_size: Side of its images in pixels; None if the run does not tell.
    """
    if about.get("data", fingerprint) != fingerprint:
        return "is not on the images of the run"
    if image_size is not None and (shown := about.get("image_size", image_size)) != image_size:
        return f"shows images at {shown} pixels, and the run has them at {image_size}"
    return None


def read_judged(folder: str | Path) -> JudgedRun:
    """Read a run folder, and what ``autolora evaluate`` found out about the run since.

    Raises:
        InputError: If it is no finished run, or its files are not what a run writes.
    """
    folder = Path(folder)
    content = read_result(folder)
    for names, kind in REQUIRED:
        require(content, folder / RESULT, names, kind)
    verdicts = folder / EVALUATIONS / VERDICTS
    images, right = read_verdicts(verdicts)
    check_scores(content["scores"], folder / RESULT, right, verdicts)
    defaults = {item.name: item.default for item in fields(RunConfig) if item.default is not MISSING}
    run = JudgedRun(folder, content, {**defaults, **content["config"]}, images, content["scores"], right, {})
    for path in sorted((folder / EVALUATIONS).glob(f"*/{EVALUATION}")):
        run = _with_evaluation(run, path)
    return run


def _with_evaluation(run: JudgedRun, path: Path) -> JudgedRun:
    """Return the run with the scores of a later evaluation, or with why they are not to be used."""
    evaluation, verdicts = read_json(path), path.with_name(VERDICTS)
    require(evaluation, path, ("scores",), dict)
    new = {name: score for name, score in evaluation["scores"].items() if name not in run.content["scores"]}
    reason = _strange(run, evaluation, verdicts)
    if reason is not None:
        return _without(run, new, f"{path.parent} {reason}")
    images, right = read_verdicts(verdicts)
    check_scores(new, path, right, verdicts)
    if images != run.images:
        run = _without(run, new, f"{path.parent} is on {len(images)} images, not on the {len(run.images)} of the run")
        partly = {name: Sampled(images, new[name], right[name]) for name in new if name in right}
        return _with_samples(run, partly) if set(images) < set(run.images) else run
    for name in new:
        if name in run.scores:
            raise InputError(f"{run.folder} has {name} twice, also in {path.parent}; move one of the evaluations away")
    right = {name: column for name, column in right.items() if name in new}
    return replace(run, scores={**run.scores, **new}, right={**run.right, **right})


def _with_samples(run: JudgedRun, samples: Mapping[str, Sampled]) -> JudgedRun:
    """Return the run with samples of its test images: of several under one metric, the one of most images counts."""
    sizes = {name: len(sample.images) for name, sample in samples.items()}
    kept = {name: known for name, known in run.samples.items() if len(known.images) >= sizes.get(name, 0)}
    return replace(run, samples={**samples, **kept})


def _strange(run: JudgedRun, evaluation: Mapping[str, Any], verdicts: Path) -> str | None:
    """Say what keeps an evaluation from being one of the run's test images under its threat model, if anything does."""
    circumstances = evaluation.get("circumstances")
    about = circumstances if isinstance(circumstances, dict) else {}
    if evaluation.get("threat_model") != run.threat:
        return f"is under {evaluation.get('threat_model')}, not {run.threat}"
    fingerprint = run.content["data"]["fingerprint"]
    if (about.get("data"), about.get("split")) != (fingerprint, "test"):
        return "is not on the test images of the run"
    if (reason := stranger(about, fingerprint, run.config.get("image_size"))) is not None:
        return reason
    return None if verdicts.is_file() else f"has no {VERDICTS}"


def _without(run: JudgedRun, metrics: Iterable[str], reason: str) -> JudgedRun:
    return replace(run, unused={**dict.fromkeys(metrics, reason), **run.unused})
