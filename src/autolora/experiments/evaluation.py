"""Evaluate a model: natural accuracy and attacks, at one radius or several, with verdicts that survive a kill."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autolora.attacks.autoattack.ensemble import NATURAL, AutoAttack
from autolora.attacks.autoattack.reference import ReferenceAutoAttack, ReferenceSquare
from autolora.attacks.autoattack.square import Square
from autolora.attacks.pgd import STEPS, parse_attack
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.evaluation.flags import Flag, flag, preflight
from autolora.evaluation.judging import Alone, Assault, Fetch, judge, score, standing
from autolora.evaluation.shards import Shard, Shards
from autolora.experiments.evaluation_config import Engine
from autolora.experiments.processes import Processes, joined
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
        engine: Whose AutoAttack: this package's ``own``, or its authors' as the ``reference``.
    """

    attacks: tuple[str, ...] = ("autoattack",)
    radii: tuple[str, ...] = ("8/255",)
    norm: Norm = "Linf"
    restarts: int = 1
    seed: int = 0
    engine: Engine = "own"

    def called(self, name: str) -> str:
        """Return the key of an attack's score: restarts are part of what PGD is."""
        return name if self.restarts == 1 or not name.startswith("pgd") else f"{name}x{self.restarts}"

    def assault(self, name: str, threat: ThreatModel) -> Assault:
        """Make an attack by its name.

        Raises:
            InputError: If there is none of that name, or the engine has none.
        """
        ensemble = AutoAttack if self.engine == "own" else ReferenceAutoAttack
        if name == "autoattack":
            return ensemble(threat)
        if name == "autoattack-fast":
            return ensemble(threat, "fast")
        if STEPS.fullmatch(name) is None:
            raise InputError(f"attack {name!r} is unknown; use autoattack, autoattack-fast, or pgd-K such as pgd-20")
        if self.engine == "reference":
            raise InputError(f"engine=reference has no {name}, only autoattack and autoattack-fast; use --engine own")
        pgd = parse_attack(name, threat, start="natural" if self.restarts == 1 else "uniform")
        return Alone(self.called(name), replace(pgd, restarts=self.restarts))


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
    victim: Victim,
    panel: Panel,
    questions: Questions,
    folder: Path,
    *,
    progress: bool = True,
    processes: Processes | None = None,
) -> dict[str, Any]:
    """Ask every question, write ``evaluation.json`` and ``verdicts.csv``, and return the former's content.

    Verdicts that are in the folder already, found under the same circumstances, are not asked for again. Where several
    processes run this, they share the images, and the first one's folder.

    Args:
        victim: The model, in evaluation mode.
        panel: The images.
        questions: What is asked.
        folder: Where everything goes.
        progress: Show a bar, in the first process.
        processes: Those that share the work; None finds out.

    Raises:
        InputError: If an attack is unknown or not for this many classes, the folder holds something else, or the
            processes have different models or images.
    """
    if processes is None:
        with joined() as processes:
            return evaluate(victim, panel, questions, folder, progress=progress, processes=processes)
    folder = Path(processes.tell(str(folder))[0])
    assaults = processes.agree(lambda: _assaults(questions, panel.classes))
    processes.agree(partial(_check_same, processes.tell(panel.circumstances)))
    doubts = preflight(victim.model, *panel.fetch(range(min(len(panel.order), PREFLIGHT_IMAGES))))
    curve: list[dict[str, Any]] = []
    columns: dict[str, Tensor] = {}
    for radius, named in assaults.items():
        scores: dict[str, Any] = {}
        for name, assault in named.items():
            shards = Shards(folder / "shards" / shard_folder(radius, name), len(panel.order), panel.shard)
            processes.agree(partial(_open, shards, panel, assault, questions.seed, processes))
            with Progress(f"{name} {format_radius(radius)}", shards, shown=progress and processes.first) as bar:
                whole = _judge(victim, panel, assault, shards, questions.seed, processes, bar)
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
    if processes.first:
        write_atomically(folder / VERDICTS, _table(whole, panel.order, columns))
        write_json(folder / EVALUATION, content)
    processes.meet()
    return content


def _assaults(questions: Questions, classes: int) -> dict[str, dict[str, Assault]]:
    """Return the attacks by radius and name, of which each has a label for this many classes."""
    made = {
        radius: {
            questions.called(name): questions.assault(name, ThreatModel(radius, questions.norm))
            for name in questions.attacks
        }
        for radius in questions.radii
    }
    for assault in (assault for named in made.values() for assault in named.values()):
        assault.label(classes)
    return made


def _check_same(circumstances: Sequence[Mapping[str, Any]]) -> None:
    """Refuse processes that do not judge the same model on the same images: their verdicts would be mixed."""
    for name, value in circumstances[0].items():
        if any(others[name] != value for others in circumstances[1:]):
            raise InputError(
                f"the processes differ in the {name} that they evaluate; weights drawn at random (--weights none) and "
                "files that differ between machines are for one process"
            )


def _open(shards: Shards, panel: Panel, assault: Assault, seed: int, processes: Processes) -> None:
    if processes.first:
        shards.open({**panel.circumstances, "attack": repr(assault), "seed": seed})


def _judge(
    victim: Victim, panel: Panel, assault: Assault, shards: Shards, seed: int, processes: Processes, bar: Progress
) -> Shard:
    """Judge this process's share, and return the verdicts of all."""
    judge(
        victim,
        panel.fetch,
        assault,
        shards,
        seed=seed,
        rank=processes.rank,
        processes=processes.count,
        on_part=bar.part,
        on_shard=bar.shard,
    )
    processes.meet()
    return shards.together()


def shard_folder(radius: str, name: str) -> str:
    """Return the name of the folder that holds the shards of an attack at one radius, such as ``pgd-20-8of255``."""
    return f"{name}-{format_radius(radius).replace('/', 'of')}"


def _entry(assault: Assault, whole: Shard, panel: Panel, doubts: list[Flag]) -> dict[str, Any]:
    parts = assault.parts()
    found = list(doubts)
    for number, part in enumerate(parts.values(), start=1):
        if isinstance(part, Square | ReferenceSquare) and bool((whole.by == number).any()):
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
