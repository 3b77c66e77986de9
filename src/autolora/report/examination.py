"""What only the models themselves can tell: how large they are, what they take attacked images for, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from autolora.data import ImageSet
from autolora.errors import InputError
from autolora.experiments.assessment import evaluation_batch
from autolora.experiments.evaluating import sample
from autolora.experiments.strength import strength
from autolora.models import RobustModel
from autolora.report.attacked import (
    ATTACK,
    Attacked,
    attack_images,
    check_order,
    load_images,
    load_model,
    saved_answers,
)
from autolora.report.classes import Confusion, confusion
from autolora.report.collected import CollectedRun
from autolora.report.gallery import Group, choose, exhibit
from autolora.report.wording import attack_title, number

FEWEST_ATTACKED = 24  # images for a confusion matrix, however large they are
SKIPPED = "They were left out (--no-gallery)."


@dataclass(frozen=True)
class Size:
    """Parameters of a model as it ships."""

    backbone: int
    head: int


@dataclass
class Examination:
    """What was found out about the runs, by their names.

    Args:
        sizes: Parameters.
        confusions: What attacked images are taken for.
        galleries: Names of runs on the same images, with groups of these.
        lacks: Why something is missing, by run; a sentence each.
        doubts: What does not fit together, by run; a sentence each.
    """

    sizes: dict[str, Size] = field(default_factory=dict)
    confusions: dict[str, Confusion] = field(default_factory=dict)
    galleries: list[tuple[tuple[str, ...], tuple[Group, ...]]] = field(default_factory=list)
    lacks: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)


def examine(
    runs: Sequence[CollectedRun],
    *,
    data: str | None,
    gallery: bool,
    device: torch.device,
    progress: bool,
    sampled: int | None = None,
) -> Examination:
    """Load the models of finished runs, and attack a few of their test images.

    Args:
        runs: The runs; those that are not finished have no model.
        data: Where the images are; None takes the place that each run's configuration names.
        gallery: Whether to look at images at all.
        device: Where to attack.
        progress: Show bars.
        sampled: Images on which confusions are counted, where no evaluation kept any; None takes about a batch.
    """
    found = Examination()
    models: dict[str, RobustModel] = {}
    for run in (run for run in runs if run.finished):
        try:
            models[run.name] = load_model(run)
            found.sizes[run.name] = _size(models[run.name])
            _look_up(run, models[run.name], found, device)
        except InputError as error:
            found.lacks[run.name] = _sentence(error)
    if not gallery:
        found.lacks |= {run.name: SKIPPED for run in runs if run.finished and run.name not in found.lacks}
        return found
    images = _images(runs, models, found, data, progress)
    for members in _alike(runs, images):
        _show(members, models, images[members[0].name], found, device, progress, sampled)
    return found


def _show(
    members: Sequence[CollectedRun],
    models: Mapping[str, RobustModel],
    images: ImageSet,
    found: Examination,
    device: torch.device,
    progress: bool,
    sampled: int | None,
) -> None:
    """Attack some images that runs have in common: those for the gallery, and a fair sample to count confusions on."""
    chosen = choose(members)
    shown = [index for _, places in chosen.values() for index in places]
    attacked = []
    for run in members:
        fair = sample(images, sampled or _enough(models[run.name]), 0)
        attacked.append(attack_images(models[run.name], images, shown + fair, run.threat, device, progress=progress))
        _check(run, attacked[-1], found)
        _count(run, attacked[-1], fair, found)
    groups = tuple(
        Group(title, total, tuple(exhibit(members, attacked, images, index) for index in places))
        for title, (total, places) in chosen.items()
    )
    found.galleries.append((tuple(run.name for run in members), groups))


def _look_up(run: CollectedRun, model: RobustModel, found: Examination, device: torch.device) -> None:
    """Count confusions on the adversarial images that an evaluation kept: on most images, by the strongest attack."""
    kept = [
        (len(item.verdicts.index), strength(attack), attack, item)
        for item in run.evaluations
        if item.verdicts is not None and item.threat == str(run.threat) and item.split == "test"
        for attack in item.verdicts.right
        if attack != "natural"
    ]
    for total, _, attack, item in sorted(kept, key=lambda each: each[:2], reverse=True):
        saved = saved_answers(model, item, attack, device)
        if saved is not None:
            note = f"{total:,} test images; the evaluation kept the adversarial image of every fall."
            found.confusions[run.name] = confusion(f"under {attack_title(attack)}", note, run.classes, *saved)
            return


def _count(run: CollectedRun, attacked: Attacked, fair: Sequence[int], found: Examination) -> None:
    """Count what a fair sample of the attacked images is taken for, unless an evaluation kept as many.

    Those for the gallery are left out: they were chosen by their verdict.
    """
    known, images = found.confusions.get(run.name), len(fair)
    if known is None or int(known.counts.sum()) < images:
        total = run.data.get("test", "?")
        which = "All" if images == total else f"A sample of {images:,} of"
        note = f"{which} {number(total)} test images, attacked for this report."
        rows = [attacked.place(index) for index in fair]
        label, answers = attacked.label.numpy()[rows], attacked.answers[1][rows]
        found.confusions[run.name] = confusion(f"under {attack_title(ATTACK)}", note, run.classes, label, answers)


def _check(run: CollectedRun, attacked: Attacked, found: Examination) -> None:
    """Compare the attack done again with the verdicts of the run."""
    assert run.verdicts is not None
    again = attacked.answers[1] == attacked.label.numpy()
    differing = int((again != run.verdicts.right[ATTACK][list(attacked.index)]).sum())
    if differing:
        found.doubts[run.name] = (
            f"Attacked again for this report, {differing} of {len(again)} images have another verdict than in the "
            "file: by rounding on another machine, or because model or file are not those of the run."
        )


def _images(
    runs: Sequence[CollectedRun],
    models: Mapping[str, RobustModel],
    found: Examination,
    data: str | None,
    progress: bool,
) -> dict[str, ImageSet]:
    """Load the test images of every run that has a model and verdicts; runs on the same images share them."""
    loaded: dict[Any, ImageSet] = {}
    images: dict[str, ImageSet] = {}
    for run in (run for run in runs if run.name in models):
        if run.verdicts is None or ATTACK not in run.verdicts.right:
            found.lacks[run.name] = f"There are no verdicts under {ATTACK} to choose images by."
            continue
        key = (run.images_key, models[run.name].architecture.input_size)
        try:
            if key not in loaded:
                loaded[key] = load_images(run, data, progress=progress)
            check_order(run, loaded[key])
            images[run.name] = loaded[key]
        except InputError as error:
            found.lacks[run.name] = _sentence(error)
    return images


def _alike(runs: Sequence[CollectedRun], images: Mapping[str, ImageSet]) -> list[list[CollectedRun]]:
    """Put runs together that have the same images at the same size, and the same threat model to disagree under."""
    found: dict[tuple[int, str], list[CollectedRun]] = {}
    for run in (run for run in runs if run.name in images):
        found.setdefault((id(images[run.name]), str(run.threat)), []).append(run)
    return list(found.values())


def _enough(model: RobustModel) -> int:
    return max(FEWEST_ATTACKED, evaluation_batch(model.architecture.network_size[-1]))


def _size(model: RobustModel) -> Size:
    return Size(*(sum(p.numel() for p in part.parameters()) for part in (model.backbone, model.head)))


def _sentence(error: InputError) -> str:
    return f"{error}."
