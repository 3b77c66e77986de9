"""Evaluate a model: natural accuracy and attacks, at one radius or several, with verdicts that survive a kill."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from autolora.attacks import PGD
from autolora.attacks.autoattack.ensemble import NATURAL, AutoAttack
from autolora.attacks.autoattack.square import Square
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.evaluation.flags import Flag, flag, preflight
from autolora.evaluation.judging import Alone, Assault, Fetch, judge, score, standing
from autolora.evaluation.shards import Shard, Shards
from autolora.experiments.progress import Progress
from autolora.experiments.result import write_atomically, write_json
from autolora.threat import Norm, ThreatModel, format_radius

EVALUATION, VERDICTS = "evaluation.json", "verdicts.csv"
PREFLIGHT_IMAGES = 32
FAST_IMAGES = 500


@dataclass(frozen=True)
class Questions:
    """What is asked about a model.

    Args:
        attacks: Names: ``autoattack``, ``autoattack-fast``, ``pgd-K``.
        radii: Radii in pixel units; the first is the one that ``scores`` are about.
        norm: Of all of them.
        restarts: Of PGD; more than one starts at random points, one at the natural image, as in the papers.
        seed: Of attacks and sample.
    """

    attacks: tuple[str, ...] = ("autoattack",)
    radii: tuple[str, ...] = ("8/255",)
    norm: Norm = "Linf"
    restarts: int = 1
    seed: int = 0

    def called(self, name: str) -> str:
        """Return the key of an attack's score: restarts are part of what PGD is."""
        return name if self.restarts == 1 or not name.startswith("pgd") else f"{name}x{self.restarts}"

    def assault(self, name: str, threat: ThreatModel) -> Assault:
        """Make an attack by its name.

        Raises:
            InputError: If there is none of that name.
        """
        if name == "autoattack":
            return AutoAttack(threat)
        if name == "autoattack-fast":
            return AutoAttack(threat, "fast")
        kind, _, steps = name.partition("-")
        if kind != "pgd" or not steps.isdigit():
            raise InputError(f"attack {name!r} is unknown; use autoattack, autoattack-fast, or pgd-K such as pgd-20")
        start = "natural" if self.restarts == 1 else "uniform"
        length = threat.radius / 4 or 1.0
        return Alone(self.called(name), PGD(threat, int(steps), length, start, self.restarts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Panel:
    """The images of an evaluation, as it takes them: in an order that makes every beginning a fair sample.

    Args:
        fetch: Gives images and labels by position in ``order``.
        order: Which image of the set is at which position.
        classes: How many classes K.
        shard: Images to judge at once.
        circumstances: What identifies model and images, for ``--resume``.
    """

    fetch: Fetch
    order: Sequence[int]
    classes: int
    shard: int
    circumstances: Mapping[str, Any]


def evaluate(
    victim: Victim, panel: Panel, questions: Questions, folder: Path, *, progress: bool = True
) -> dict[str, Any]:
    """Ask every question, write ``evaluation.json`` and ``verdicts.csv``, and return the former's content.

    Verdicts that are in the folder already, found under the same circumstances, are not asked for again.

    Raises:
        InputError: If an attack is unknown, or the folder holds something else.
    """
    state = PartialState()
    assaults = {
        radius: {
            questions.called(name): questions.assault(name, ThreatModel(radius, questions.norm))
            for name in questions.attacks
        }
        for radius in questions.radii
    }
    doubts = preflight(victim.model, *panel.fetch(range(min(len(panel.order), PREFLIGHT_IMAGES))))
    curve: list[dict[str, Any]] = []
    columns: dict[str, Tensor] = {}
    for radius, named in assaults.items():
        scores: dict[str, Any] = {}
        for name, assault in named.items():
            shards = Shards(folder / "shards" / _folder(radius, name), len(panel.order), panel.shard)
            _judge(victim, panel, assault, shards, questions, f"{name} {format_radius(radius)}", state, progress)
            whole = shards.together()
            scores |= {"natural": score(whole, NATURAL).as_json(), name: _entry(assault, whole, panel, doubts)}
            columns |= _columns(
                name, assault, whole, "" if radius == questions.radii[0] else f"@{format_radius(radius)}"
            )
        curve.append({"eps": format_radius(radius), "scores": scores})
    content = {
        "threat_model": str(ThreatModel(questions.radii[0], questions.norm)),
        "images": len(panel.order),
        "scores": curve[0]["scores"],
        **({"curve": curve} if len(curve) > 1 else {}),
        "circumstances": dict(panel.circumstances),
    }
    if state.is_main_process:
        write_atomically(folder / VERDICTS, _table(whole, panel.order, columns))
        write_json(folder / EVALUATION, content)
    state.wait_for_everyone()
    return content


def _judge(
    victim: Victim,
    panel: Panel,
    assault: Assault,
    shards: Shards,
    questions: Questions,
    title: str,
    state: PartialState,
    progress: bool,
) -> None:
    if state.is_main_process:
        shards.open({**panel.circumstances, "attack": repr(assault), "seed": questions.seed})
    state.wait_for_everyone()
    with Progress(title, shards, shown=progress and state.is_main_process) as bar:
        judge(
            victim,
            panel.fetch,
            assault,
            shards,
            seed=questions.seed,
            rank=state.process_index,
            processes=state.num_processes,
            on_part=bar.part,
            on_shard=bar.shard,
        )
    state.wait_for_everyone()


def _folder(radius: str, name: str) -> str:
    return f"{name}-{format_radius(radius).replace('/', 'of')}"


def _entry(assault: Assault, whole: Shard, panel: Panel, doubts: list[Flag]) -> dict[str, Any]:
    parts = assault.parts()
    found = list(doubts)
    for number, part in enumerate(parts.values(), start=1):
        if isinstance(part, Square) and bool((whole.by == number).any()):
            found.append(flag("black-box-stronger", whole.by == number))
    after = {part: score(whole, number).accuracy for number, part in enumerate(parts, start=1)}
    extra = {"after": after} if len(parts) > 1 else {}
    return {
        **score(whole).as_json(),
        "label": assault.label(panel.classes),
        "flags": [doubt.as_json() for doubt in found],
        **extra,
    }


def _columns(name: str, assault: Assault, whole: Shard, suffix: str) -> dict[str, Tensor]:
    """Return a column per attack, and for an ensemble one per part: 1 where the image stands after it."""
    parts = list(assault.parts())
    columns = {name + suffix: standing(whole)}
    if len(parts) > 1:
        columns |= {part + suffix: standing(whole, number) for number, part in enumerate(parts, start=1)}
    return columns


def _table(whole: Shard, order: Sequence[int], columns: Mapping[str, Tensor]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", "predicted", "natural", *columns])
    natural = standing(whole, NATURAL)
    values = [whole.label, whole.predicted, natural.int(), *(column.int() for column in columns.values())]
    rows = zip(order, torch.stack(values, dim=1).tolist(), strict=True)
    writer.writerows([index, *row] for index, row in sorted(rows))
    return text.getvalue()
