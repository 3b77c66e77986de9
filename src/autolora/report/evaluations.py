"""What was measured on a run: accuracies with what they may be called, verdicts image by image, corruptions."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autolora.errors import InputError
from autolora.evaluation import Score
from autolora.experiments.export.measurements import Measurement
from autolora.experiments.judged import EVALUATION, VERDICTS
from autolora.experiments.judged_files import check_scores, read_json, read_verdicts, require
from autolora.threat import ThreatModel

NATURAL, AUTOATTACK = "natural", "autoattack"
SHARDS = "shards"  # in the folder of an evaluation: where ``autolora evaluate`` keeps verdicts as they are found


@dataclass(frozen=True)
class Measured:
    """An accuracy, and what has to be known to read it.

    Args:
        attack: Key of the score: ``natural``, ``pgd-10``, ``autoattack``.
        threat: Norm and radius, such as ``Linf 8/255``.
        split: Which images.
        score: How many of them are right; interval and accuracy follow.
        label: What the result may be called; empty if the file does not say.
        flags: Reasons for doubt; None if nobody looked for any.
        after: Accuracy after each part of an ensemble.
        source: Where it stands.
    """

    attack: str
    threat: str
    split: str
    score: Score
    label: str
    flags: tuple[Mapping[str, Any], ...] | None
    after: Mapping[str, float]
    source: str

    @property
    def stated(self) -> Measurement:
        """Return it as an export states it."""
        norm, _, eps = self.threat.partition(" ")
        counted = self.score.accuracy, self.score.correct, self.score.total, self.score.ci95
        return Measurement(self.attack, self.label or self.attack, norm, eps, *counted, flags=self.flags or ())

    @property
    def upper_bound(self) -> bool:
        """Whether AutoAttack as a whole may well find more images that fall."""
        return self.stated.is_upper_bound


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What a model says of every image that was judged.

    Args:
        index: Place of each image in its split, (N,).
        label: Its class, (N,).
        predicted: What the model takes the natural image for, (N,).
        right: By attack, whether the model is right on it, (N,).
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    right: Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A folder that ``autolora evaluate`` wrote.

    Args:
        folder: Where.
        threat: Of its scores.
        split: Which images.
        images: How many of them.
        scores: Accuracies by attack.
        curve: The same for every radius, where there are several.
        corruptions: By type, with what the file says of them; None if they were not asked for.
        verdicts: Image by image; None if the file is missing.
        about: Circumstances: of which model and images it is, as far as it tells.
    """

    folder: Path
    threat: str
    split: str
    images: int
    scores: tuple[Measured, ...]
    curve: tuple[Measured, ...] = ()
    corruptions: Mapping[str, Any] | None = None
    verdicts: Verdicts | None = field(default=None, repr=False)
    about: Mapping[str, Any] = field(default_factory=dict)


def read_evaluation(path: Path, classes: int) -> Evaluation:
    """Read the ``evaluation.json`` of a later evaluation, and the verdicts beside it.

    Raises:
        InputError: If it is not what ``autolora evaluate`` writes, or verdicts and scores contradict each other.
    """
    content, folder = read_json(path), path.parent
    for names, kind in ((("threat_model",), str), (("images",), int), (("scores",), dict)):
        require(content, path, names, kind)
    about = found if isinstance(found := content.get("circumstances"), dict) else {}
    split = str(about.get("split", "test"))
    threat = _threat(content["threat_model"])
    curve: list[Measured] = []
    if "curve" in content:
        require(content, path, ("curve",), list)
        for point in content["curve"]:
            require(point, path, ("eps",), str)
            require(point, path, ("scores",), dict)
            radius = _threat(f"{threat.norm} {point['eps']}")
            curve += read_scores(point["scores"], path, str(radius), split, folder.name)
    verdicts = None
    if (folder / VERDICTS).is_file():
        verdicts = verdicts_of(folder / VERDICTS, classes)
        check_scores(content["scores"], path, dict(verdicts.right), folder / VERDICTS)
    return Evaluation(
        folder,
        str(threat),
        split,
        content["images"],
        read_scores(content["scores"], path, str(threat), split, folder.name),
        tuple(curve),
        _corruptions(content, path),
        verdicts,
        about,
    )


def read_scores(scores: Mapping[str, Any], path: Path, threat: str, split: str, source: str) -> tuple[Measured, ...]:
    """Read a ``scores`` block.

    Raises:
        InputError: If a score is none, or its accuracy is not what was counted.
    """
    return tuple(_measured(name, scores, path, threat, split, source) for name in scores)


def verdicts_of(path: Path, classes: int) -> Verdicts:
    """Read ``verdicts.csv``.

    Raises:
        InputError: If it is damaged, or names a class that there is not.
    """
    _, right = read_verdicts(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        index, label, predicted = (
            np.array([int(row[name]) for row in rows], dtype=np.int64) for name in ("index", "label", "predicted")
        )
    except (KeyError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is damaged ({error}); evaluate the run again") from None
    if min(index.min(), label.min(), predicted.min()) < 0 or max(label.max(), predicted.max()) >= classes:
        raise InputError(f"{path} names a class that is not among the {classes} of the run; evaluate the run again")
    if NATURAL not in right:
        raise InputError(f"{path} has no column {NATURAL!r}; evaluate the run again")
    return Verdicts(index, label, predicted, right)


def evaluation_files(folder: Path) -> list[Path]:
    """Return where the later evaluations of a run stand."""
    return sorted(folder.glob(f"*/{EVALUATION}"))


def _threat(written: str) -> ThreatModel:
    norm, _, eps = written.partition(" ")
    return ThreatModel(eps, norm)  # type: ignore[arg-type]  # which names other norms itself, and refuses them


def _measured(name: str, scores: Mapping[str, Any], path: Path, threat: str, split: str, source: str) -> Measured:
    for item, kind in (("correct", int), ("total", int), ("accuracy", float | int)):
        require({"scores": scores}, path, ("scores", name, item), kind)
    found = scores[name]
    correct, total = found["correct"], found["total"]
    if not 0 <= correct <= total or not total or abs(found["accuracy"] - correct / total) > 1e-6:
        raise InputError(
            f"{path} has accuracy={found['accuracy']} under {name}, which is not {correct} of {total}; evaluate again"
        )
    flags, after = found.get("flags"), found.get("after", {})
    flags = tuple(item for item in flags if isinstance(item, dict)) if isinstance(flags, list) else None
    after = (
        {part: share for part, share in after.items() if isinstance(share, float)} if isinstance(after, dict) else {}
    )
    return Measured(name, threat, split, Score(correct, total), str(found.get("label", "")), flags, after, source)


def _corruptions(content: Mapping[str, Any], path: Path) -> Mapping[str, Any] | None:
    found = content.get("corruptions")
    if found is None:
        return None
    for names, kind in ((("mean_accuracy",), float | int), (("total",), int), (("types",), dict)):
        require(found, path, names, kind)
    for name in found["types"]:
        require(found, path, ("types", name, "mean_accuracy"), float | int)
        require(found, path, ("types", name, "accuracy"), dict)
    return found
