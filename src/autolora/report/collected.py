"""A run as its folder tells of it: finished or not, evaluated or not. What cannot be read is said, not hidden."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from autolora.errors import InputError
from autolora.experiments.judged import EVALUATIONS, VERDICTS, has_drawn_images, stranger
from autolora.experiments.judged_files import check_scores, read_json, require
from autolora.experiments.result import CONFIG, METRICS, RESULT
from autolora.experiments.selection import selected_on
from autolora.experiments.strength import strength
from autolora.report.evaluations import (
    NATURAL,
    Evaluation,
    Measured,
    Verdicts,
    evaluation_files,
    read_evaluation,
    read_scores,
    verdicts_of,
)
from autolora.threat import ThreatModel

Row = Mapping[str, float]
REQUIRED: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("config",), dict),
    (("scores",), dict),
    (("data", "classes"), list),
    (("threat_model", "norm"), str),
    (("threat_model", "eps"), str),
)


@dataclass(frozen=True, eq=False)
class CollectedRun:
    """What a run folder holds.

    Args:
        folder: The run folder, as the user named it.
        name: What the report calls it.
        config: Every option.
        result: What ``result.json`` holds; empty while the run is not finished.
        history: A row per finished epoch.
        own: The run's own scores, of all its test images.
        verdicts: Its verdicts on them; None if there are none.
        evaluations: What ``autolora evaluate`` found out since.
        unread: What is there and cannot be read, a sentence each.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    history: tuple[Row, ...]
    own: tuple[Measured, ...] = ()
    verdicts: Verdicts | None = None
    evaluations: tuple[Evaluation, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.result)

    @cached_property
    def threat(self) -> ThreatModel:
        """Return the threat model that the run trained for, and was tested under.

        Raises:
            InputError: If the configuration names none.
        """
        stated = self.result.get("threat_model", self.config)
        return ThreatModel(stated.get("eps", "8/255"), stated.get("norm", "Linf"))

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes; none while the run is not finished."""
        return tuple(map(str, self.result["data"]["classes"])) if self.finished else ()

    @property
    def data(self) -> Mapping[str, Any]:
        """Return what ``result.json`` says of the data."""
        return self.block("data")

    def block(self, name: str) -> Mapping[str, Any]:
        """Return a part of ``result.json``, such as ``environment``; empty if it is not there."""
        found = self.result.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was noted when the data were read and divided."""
        notes = self.data.get("notes")
        return tuple(map(str, notes)) if isinstance(notes, list) else ()

    @property
    def selected_on_test(self) -> bool:
        """Whether the epoch was selected on the test images, which makes the scores better than they are."""
        return selected_on(self.notes, str(self.result.get("selected_on", "val"))) == "test"

    @property
    def method(self) -> str:
        """Return the name of the method."""
        return str(self.config.get("method", "?"))

    @property
    def epochs(self) -> int:
        """Return how many epochs were asked for, at least those that are finished."""
        asked = self.config.get("epochs")
        done = int(self.history[-1]["epoch"]) if self.history else 0
        return max(asked, done) if isinstance(asked, int) else done

    @property
    def measured(self) -> tuple[Measured, ...]:
        """Return every accuracy, the run's own first; one that two files hold alike counts once."""
        found: dict[tuple[Any, ...], Measured] = {}
        for item in (*self.own, *(item for each in self.evaluations for item in (*each.scores, *each.curve))):
            found.setdefault((item.attack, item.threat, item.split, item.score), item)
        return tuple(found.values())

    @property
    def judgements(self) -> tuple[tuple[str, Verdicts], ...]:
        """Return attacks under the run's threat model on its test images, weakest first, with the verdicts of each.

        Of several evaluations with one attack, the one on most images counts.
        """
        sources = [self.verdicts] + [
            item.verdicts
            for item in self.evaluations
            if item.threat == str(self.threat) and item.split == "test" and item.verdicts is not None
        ]
        found: dict[str, Verdicts] = {}
        for verdicts in (item for item in sources if item is not None):
            for attack in (name for name in verdicts.right if "@" not in name and _is_attack(name)):
                if attack not in found or len(verdicts.index) > len(found[attack].index):
                    found[attack] = verdicts
        return tuple(sorted(found.items(), key=lambda item: strength(item[0])))

    @property
    def images_key(self) -> tuple[Any, ...]:
        """Return what two runs have in common if their test images are the same ones."""
        drawn = has_drawn_images(self.data) is not False
        return (self.data.get("fingerprint"), self.classes, self.config.get("seed") if drawn else None)


def collect(folders: Sequence[str | Path]) -> tuple[CollectedRun, ...]:
    """Read run folders.

    Raises:
        InputError: If none is given, one is given twice, or one holds no run or a damaged result.
    """
    if not folders:
        raise InputError("no run given; name one run folder or several, as --out of `autolora fit` named them")
    paths = [Path(folder) for folder in folders]
    for place, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:place]]:
            raise InputError(f"{path} is given twice; give each run once")
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return tuple(_run(path, name) for path, name in zip(paths, names, strict=True))


def _run(folder: Path, name: str) -> CollectedRun:
    result = folder / RESULT
    if not result.is_file() and not (folder / CONFIG).is_file():
        raise InputError(f"{folder} holds no run: neither {RESULT} nor {CONFIG}; give a folder that --out named")
    if not result.is_file():
        run = CollectedRun(folder, name, _config(folder / CONFIG), {}, ())
        return _with_history(run)
    content = read_json(result)
    for names, kind in REQUIRED:
        require(content, result, names, kind)
    run = _with_history(CollectedRun(folder, name, content["config"], content, ()))
    own = read_scores(content["scores"], result, str(run.threat), "test", RESULT)
    return _with_evaluations(_with_verdicts(replace(run, own=own)))


def _config(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path} is damaged and cannot be read as YAML ({error}); start the run again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold options as YAML, KEY: VALUE; start the run again")
    return content


def _with_history(run: CollectedRun) -> CollectedRun:
    path = run.folder / METRICS
    if not path.is_file():
        return run
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        history = tuple({name: value for name, value in row.items() if _is_number(value)} for row in rows)
    except (ValueError, AttributeError, RecursionError) as error:
        return replace(run, unread=(*run.unread, f"{path} is damaged: {error}"))
    if not all("epoch" in row for row in history):
        return replace(run, unread=(*run.unread, f"{path} has a line without its epoch"))
    return replace(run, history=history)


def _with_verdicts(run: CollectedRun) -> CollectedRun:
    path = run.folder / EVALUATIONS / VERDICTS
    try:
        verdicts = verdicts_of(path, len(run.classes))
        check_scores(run.result["scores"], run.folder / RESULT, dict(verdicts.right), path)
    except InputError as error:
        return replace(run, unread=(*run.unread, str(error)))
    return replace(run, verdicts=verdicts)


def _with_evaluations(run: CollectedRun) -> CollectedRun:
    found, unread = [], list(run.unread)
    for path in evaluation_files(run.folder / EVALUATIONS):
        try:
            evaluation = read_evaluation(path, len(run.classes))
            reason = stranger(evaluation.about, run.data.get("fingerprint"), run.config.get("image_size"))
            if reason is None:
                found.append(evaluation)
            else:
                unread.append(f"{path.parent} {reason}, and is left out")
        except InputError as error:
            unread.append(str(error))
    return replace(run, evaluations=tuple(found), unread=tuple(unread))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_attack(name: str) -> bool:
    """Whether a column is of an attack as a whole, and not of a part of one."""
    return name == NATURAL or name.startswith(("pgd-", "autoattack"))
