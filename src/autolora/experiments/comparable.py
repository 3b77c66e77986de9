"""What makes a comparison of finished runs meaningless."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from autolora.errors import InputError
from autolora.experiments.judged import EVALUATIONS, VERDICTS, JudgedRun


def check_comparable(runs: Sequence[JudgedRun]) -> None:
    """Refuse runs that cannot be compared.

    Raises:
        InputError: If they are fewer than two, or one differs from another in data, threat model or test images, or
            is the same run again.
    """
    if len(runs) < 2:
        raise InputError(f"{len(runs) or 'no'} run given; a comparison takes two run folders or more")
    for a, b in combinations(runs, 2):
        _check_data(a, b)
        _check_threat(a, b)
        _check_images(a, b)
        _check_seeds(a, b)


def _check_data(a: JudgedRun, b: JudgedRun) -> None:
    names = [list(map(str, run.content["data"]["classes"])) for run in (a, b)]
    if names[0] != names[1]:
        raise InputError(
            f"{a.folder} and {b.folder} have different classes ({_listed(names[0])}; {_listed(names[1])}); only "
            "accuracies on the same images can be compared"
        )
    prints = [run.content["data"]["fingerprint"] for run in (a, b)]
    if prints[0] != prints[1]:
        raise InputError(
            f"{a.folder} and {b.folder} have different data (fingerprints {prints[0][:12]} and {prints[1][:12]}); only "
            "accuracies on the same images can be compared"
        )


def _check_threat(a: JudgedRun, b: JudgedRun) -> None:
    models = [run.content["threat_model"] for run in (a, b)]
    same_radius = math.isclose(models[0]["radius"], models[1]["radius"], rel_tol=1e-6)
    if models[0]["norm"] != models[1]["norm"] or not same_radius:
        raise InputError(
            f"{a.folder} and {b.folder} have different threat models ({a.threat} and {b.threat}); a robust accuracy "
            "says something only about its own, so repeat one of them with the --norm and --eps of the other"
        )


def _check_images(a: JudgedRun, b: JudgedRun) -> None:
    """Refuse runs whose images should be the same and are not, and sets of different sizes in any case."""
    if len(a.images) != len(b.images):
        raise InputError(
            f"{a.folder} and {b.folder} were tested on different images ({len(a.images)} and {len(b.images)}); only "
            "accuracies on the same images can be compared"
        )
    if a.shares_images(b) and a.images != b.images:
        row = next(row for row, (one, other) in enumerate(zip(a.images, b.images, strict=True)) if one != other)
        pair = " and ".join(f"index {run.images[row][0]}, label {run.images[row][1]}" for run in (a, b))
        raise InputError(
            f"{a.folder} and {b.folder} were tested on different images, although data and seed say they are the same "
            f"(line {row + 2} of {EVALUATIONS}/{VERDICTS}: {pair})"
        )


def _check_seeds(a: JudgedRun, b: JudgedRun) -> None:
    if a.folder.resolve() == b.folder.resolve():
        raise InputError(f"{a.folder} and {b.folder} are the same run; give each run once")
    if a.seed == b.seed and a.recipe == b.recipe:
        raise InputError(
            f"{a.folder} and {b.folder} have the same configuration and the same seed, {a.seed}; a run that is done "
            "twice is no second seed, so leave one of them out"
        )


def _listed(names: Sequence[str], shown: int = 6) -> str:
    more = f", ... {len(names)} in all" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
