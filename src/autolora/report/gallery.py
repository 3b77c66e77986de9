"""Test images to look at: natural, attacked, and the difference magnified; some that fell and some that held."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from autolora.data import ImageSet
from autolora.report.attacked import ATTACK, Attacked
from autolora.report.collected import CollectedRun
from autolora.report.wording import attack_title, percent

MAGNIFIED = 10
LOSSLESS, SHOWN = 96, 160  # sides in pixels: larger images come as JPEG, and are shrunk to what a page shows
QUALITY = 90
SHOWINGS = 12  # of a kind, over all runs and the natural image: what a page can hold


@dataclass(frozen=True)
class Answer:
    """What a model takes an image for."""

    name: str
    confidence: str
    right: bool


@dataclass(frozen=True)
class Showing:
    """An image under attack, as one run sees it.

    Args:
        run: Name of the run.
        adversarial: The attacked image, as a data URI.
        difference: What the attack added, magnified; grey is nothing.
        natural: Answer on the natural image.
        attacked: Answer on the attacked image.
        verdicts: Attacks whose verdict on this image is known, and whether it held.
    """

    run: str
    adversarial: str
    difference: str
    natural: Answer
    attacked: Answer
    verdicts: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Exhibit:
    """A test image.

    Args:
        index: Its place in the test split.
        file: Its folder and file.
        label: Its class.
        clean: The natural image, as a data URI.
        showings: What each run makes of it.
    """

    index: int
    file: str
    label: str
    clean: str
    showings: tuple[Showing, ...]


@dataclass(frozen=True)
class Group:
    """Images that have something in common; ``of`` is how many there are in all."""

    title: str
    of: int
    exhibits: tuple[Exhibit, ...]


def choose(runs: Sequence[CollectedRun], seed: int = 0) -> dict[str, tuple[int, list[int]]]:
    """Choose images by the verdicts of runs on the same test images.

    Returns:
        By what they have in common: how many there are, and the places of those to show, of many classes.
    """
    verdicts = [run.verdicts for run in runs if run.verdicts is not None]
    natural = np.all([each.right["natural"] for each in verdicts], axis=0)
    held = np.array([each.right[ATTACK] for each in verdicts])
    if len(runs) == 1:
        kinds = {"Fell to the attack": natural & ~held[0], "Held against it": held[0]}
    else:
        kinds = {
            "The runs disagree": held.any(axis=0) & ~held.all(axis=0),
            "Fell with every run": natural & ~held.any(axis=0),
            "Held with every run": held.all(axis=0),
        }
    count = max(1, SHOWINGS // (len(runs) + 1))
    first = verdicts[0]
    return {
        title: (int(chosen.sum()), [int(first.index[row]) for row in _mixed(chosen, first.label, count, seed)])
        for title, chosen in kinds.items()
    }


def exhibit(runs: Sequence[CollectedRun], attacked: Sequence[Attacked], images: ImageSet, index: int) -> Exhibit:
    """Show one test image as every run sees it; the runs have classes in common."""
    classes = runs[0].classes
    showings = []
    for run, found in zip(runs, attacked, strict=True):
        place = found.place(index)
        x, x_adv, label = found.x[place], found.x_adv[place], found.label[place]
        answers = [_answer(each[place], label, classes) for each in (found.natural, found.adversarial)]
        showings.append(
            Showing(
                run.name, data_uri(x_adv), data_uri(magnified(x, x_adv)), answers[0], answers[1], _known(run, index)
            )
        )
    x, y = images[index]
    # where the data lie is nobody's business who gets the page by mail
    file = "/".join(images.names[index].split("/")[-2:])
    return Exhibit(index, file, classes[y], data_uri(x), tuple(showings))


def magnified(x: Tensor, x_adv: Tensor) -> Tensor:
    """Return ten times the difference around grey, (C, H, W) in [0, 1]; what leaves the range is cut off."""
    return (0.5 + MAGNIFIED * (x_adv - x)).clamp(0, 1)


def data_uri(image: Tensor, lossless: int = LOSSLESS) -> str:
    """Write an image (3, H, W) in [0, 1] into an address that holds all of it.

    Images up to ``lossless`` pixels wide and high come as they are; larger ones are shrunk.
    """
    pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
    picture, written = Image.fromarray(pixels), io.BytesIO()
    if max(picture.size) <= lossless:
        picture.save(written, "PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((SHOWN, SHOWN), Image.Resampling.LANCZOS)
        picture.save(written, "JPEG", quality=QUALITY, subsampling=0)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


def _mixed(chosen: NDArray[np.bool_], label: NDArray[np.int64], count: int, seed: int) -> list[int]:
    """Draw rows of those that are chosen, at random, one of each class before a second of any."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(chosen))
    seen: dict[int, int] = {}
    turns = []
    for row in rows:
        turns.append(seen.get(int(label[row]), 0))
        seen[int(label[row])] = turns[-1] + 1
    order = np.argsort(turns, kind="stable")[:count]
    return sorted((int(row) for row in rows[order]), key=lambda row: (int(label[row]), row))


def _answer(probabilities: Tensor, label: Tensor, classes: Sequence[str]) -> Answer:
    if not bool(probabilities.isfinite().all()):
        return Answer("no finite answer", "", False)
    best = int(probabilities.argmax())
    return Answer(classes[best], percent(float(probabilities[best])), best == int(label))


def _known(run: CollectedRun, index: int) -> tuple[tuple[str, bool], ...]:
    found = []
    for attack, verdicts in run.judgements:
        rows = np.flatnonzero(verdicts.index == index)
        if attack != "natural" and len(rows):
            found.append((attack_title(attack), bool(verdicts.right[attack][rows[0]])))
    return tuple(found)
