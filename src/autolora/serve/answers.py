"""What the page is told of an attack: JSON in which pictures are data, and every number is in words."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from autolora.data import ImageSet
from autolora.report.gallery import MAGNIFIED, data_uri, magnified
from autolora.report.wording import percent, plain
from autolora.serve.playground import Outcome

LISTED = 3  # classes of the highest confidence
WHOLE = 1024  # side in pixels up to which pictures are sent without loss


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Describe one image with one model."""
    return {
        "run": plain(outcome.run),
        "target": plain(outcome.classes[outcome.target]),
        "natural": _answer(outcome, outcome.natural),
        "attacked": _answer(outcome, outcome.adversarial),
        "pictures": {
            "natural": data_uri(outcome.x, lossless=WHOLE),
            "attacked": data_uri(outcome.x_adv, lossless=WHOLE),
            "difference": data_uri(magnified(outcome.x, outcome.x_adv), lossless=WHOLE),
        },
        "magnified": MAGNIFIED,
        "changed": f"{255 * float((outcome.x_adv - outcome.x).abs().max()):.1f}/255",
    }


def listing_json(images: ImageSet, classes: tuple[str, ...], first: int, count: int) -> list[dict[str, Any]]:
    """Describe some of the test images to choose from, one of each class before a second of any."""
    seen: dict[int, int] = {}
    turns = []
    for label in images.labels.tolist():
        seen[label] = seen.get(label, 0) + 1
        turns.append(seen[label])
    order = sorted(range(len(images)), key=lambda index: (turns[index], int(images.labels[index])))
    return [
        {
            "index": index,
            "file": plain("/".join(images.names[index].split("/")[-2:])),
            "label": plain(classes[int(images.labels[index])]),
            "picture": data_uri(images[index][0]),
        }
        for index in order[first : first + count]
    ]


def _answer(outcome: Outcome, probabilities: Tensor) -> dict[str, Any]:
    """Return the classes of highest confidence; none of them if the logits were not finite."""
    if not bool(probabilities.isfinite().all()):
        return {"right": False, "classes": []}
    shares, places = probabilities.topk(min(LISTED, len(probabilities)))
    named = zip(places.tolist(), shares.tolist(), strict=True)
    return {
        "right": int(places[0]) == outcome.target,
        "classes": [
            {"name": plain(outcome.classes[place]), "share": share, "percent": percent(share)} for place, share in named
        ],
    }
