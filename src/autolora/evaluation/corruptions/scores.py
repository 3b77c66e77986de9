"""Accuracy under common corruptions: per type and severity, per type, and the mean over all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from tqdm import tqdm

from autolora.attacks import Forward
from autolora.errors import InputError
from autolora.evaluation.accuracy import Batches, verdicts
from autolora.evaluation.corruptions import CORRUPTIONS, SEVERITIES, Streams, benchmark, check_choice, corrupt


class TypeScore(TypedDict):
    """What a model makes of one type of corruption; keys of the inner dictionaries are severities."""

    mean_accuracy: float
    accuracy: dict[str, float]
    correct: dict[str, int]
    departure: str


class CorruptionScores(TypedDict):
    """What a model makes of corrupted images, ready for JSON."""

    mean_accuracy: float  # mCA: the mean over types and severities
    total: int  # images, each of which is seen at every type and severity
    seed: int
    constants: str  # whose they are: CIFAR-10-C or ImageNet-C
    types: dict[str, TypeScore]


def corruption_scores(
    model: Forward,
    batches: Batches,
    names: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    *,
    places: Sequence[int] | None = None,
    progress: bool = True,
) -> CorruptionScores:
    """Count what a model gets right on corrupted images. The model must be in evaluation mode.

    Args:
        model: Images in [0, 1] to logits. Logits that are not finite are never right.
        batches: Images (N, 3, H, W) in [0, 1] and labels (N,), on the model's device.
        names: Types, of :data:`~autolora.evaluation.corruptions.CORRUPTIONS`.
        severities: Of 1 to 5.
        seed: Seed of all that is random.
        places: Of each image in the data set, in the order of the batches: an image is altered alike in any sample.
            None: they are the whole set, in its order.
        progress: Show a progress bar.

    Raises:
        InputError: For unknown, repeated or missing names or severities, and for images that cannot be corrupted.
        ValueError: Without an image.
    """
    check_choice(names, severities)
    for choice in (names, severities):
        if not choice or len(set(choice)) < len(choice):
            raise InputError(f"{list(choice)} cannot be averaged over; name at least one, and none twice")
    correct = {name: dict.fromkeys(severities, 0) for name in names}
    total, constants = 0, set()
    with tqdm(desc="corruptions", unit="image", disable=not progress, leave=False, dynamic_ncols=True) as bar:
        for x, y in batches:
            seen = range(total, total + len(x))
            streams = Streams(seed, seen if places is None else [places[number] for number in seen])
            for name, counts in correct.items():
                for severity in severities:
                    corrupted = corrupt(x, name, severity, streams)
                    counts[severity] += verdicts(model, [(corrupted, y)]).score.correct
            constants.add(benchmark(*x.shape[2:]))
            total += len(x)
            bar.update(len(x))
    if not total:
        raise ValueError("no images to corrupt: an accuracy needs at least one image")
    types = {name: _type_score(counts, total, CORRUPTIONS[name].departure) for name, counts in correct.items()}
    mean = sum(score["mean_accuracy"] for score in types.values()) / len(types)
    return {
        "mean_accuracy": mean,
        "total": total,
        "seed": seed,
        "constants": " and ".join(sorted(constants)),
        "types": types,
    }


def _type_score(counts: dict[int, int], total: int, departure: str) -> TypeScore:
    return {
        "mean_accuracy": sum(counts.values()) / (total * len(counts)),
        "accuracy": {str(severity): count / total for severity, count in counts.items()},
        "correct": {str(severity): count for severity, count in counts.items()},
        "departure": departure,
    }
