"""Findings about the model: its answers, their order, and the images that its network is shown."""

from __future__ import annotations

from collections.abc import Sequence

from autolora.evaluation import Score, Verdicts
from autolora.evaluation.flags import Flag
from autolora.evaluation.input_scale import Rescaled
from autolora.evaluation.label_order import LabelOrder
from autolora.experiments.diagnosis import Finding, first

SOUND = {
    "input-range": "all {total} images lie in [0, 1]",
    "not-finite": "the logits of all {total} images are finite",
    "probabilities": "the model answers with logits",
    "non-deterministic": "the same images get the same logits again",
    "batch-dependent": "an image gets the same logits in any batch",
    "zero-gradients": "the logits have a gradient in all {total} images",
}
ADVICE = {
    "input-range": "show the model images in [0, 1], and normalise inside it",
    "not-finite": "look for an overflow or a division by zero in the model",
    "zero-gradients": "look for rounding, a detach or saturation between image and logits",
}  # where the flag itself has none


def flag_findings(flags: Sequence[Flag], total: int) -> list[Finding]:
    """Say what :func:`autolora.evaluation.flags.preflight` found on ``total`` images, and what it did not."""
    raised = {flag.name: flag for flag in flags}
    findings = []
    for name, sound in SOUND.items():
        if name in raised:
            what, _, advice = raised[name].message.partition("; ")
            count = raised[name].count
            found, details = f"{what} ({count} of {total} images)", {"count": count, "total": total}
            findings.append(Finding(name, "problem", found, advice or ADVICE[name], details))
        elif name != "batch-dependent" or "non-deterministic" not in raised:  # where chance hides it, it is not known
            findings.append(Finding(name, "ok", sound.format(total=total), details={"count": 0, "total": total}))
    return findings


def classes_finding(outputs: int, named: Sequence[str], classes: Sequence[str]) -> Finding:
    """Compare a model's outputs with the classes of the data.

    Args:
        outputs: How many logits the model gives.
        named: What the model calls them; empty if it does not say.
        classes: Classes of the data, in the order of their labels.
    """
    details = {"outputs": outputs, "classes": list(classes), "named": list(named)}
    advice = "take data of the model's own classes, or fine-tune it on these: `autolora fit`"
    if outputs != len(classes):
        found = f"the model tells {outputs} classes apart, and the data have {len(classes)} ({first(classes)})"
        return Finding("classes", "problem", found, advice, details)
    if named and list(named) != list(classes):
        found = f"the model's classes are {first(named)}, and those of the data {first(classes)}"
        return Finding("classes", "problem", found, advice, details)
    order = "of the same names" if named else f"which the model does not name: taken as {first(classes)}"
    return Finding("classes", "ok", f"{outputs} outputs for {len(classes)} classes, {order}", details=details)


def accuracy_finding(verdicts: Verdicts, classes: int) -> Finding:
    """Compare natural accuracy with that of a constant answer, and of chance."""
    score = verdicts.score
    constant = int(verdicts.label.bincount().max()) / score.total
    favourite = int(verdicts.predicted.bincount().max()) / score.total
    low, high = score.ci95
    found = (
        f"{score.accuracy:.1%} of {score.total} images are right [{100 * low:.1f}, {100 * high:.1f}]; the commonest "
        f"class alone {constant:.1%}, chance {1 / classes:.1%}"
    )
    details = {**score.as_json(), "constant": constant, "chance": 1 / classes, "favourite": favourite}
    if low > constant:
        return Finding("accuracy", "ok", found, details=details)
    if score.accuracy > constant:
        advice = "too few images to say that the model knows anything: raise --limit, or test on more"
        return Finding("accuracy", "note", found, advice, details)
    if favourite == 1:
        found += "; the model gives every image the same class"
    advice = "a model that knows nothing cannot be robust: check weights, classes and --image-size"
    return Finding("accuracy", "problem", found, advice, details)


def order_finding(order: LabelOrder, classes: Sequence[str]) -> Finding:
    """Say whether the outputs stand in the order of the classes."""
    details = {
        "given": order.given.as_json(),
        "best": order.best.as_json(),
        "p": order.discordance.p,
        "outputs": {name: output for name, output in zip(classes, order.outputs, strict=True)},
    }
    if not order.moved:
        found = "the outputs stand in the order of the classes: no other order gets more images right"
        return Finding("label-order", "ok", found, details=details)
    best = (
        f"{_given(order.given)}, {order.best.accuracy:.1%} in the best other order, "
        f"on {order.given.total} images that did not choose it"
    )
    if not order.wrong:
        return Finding("label-order", "ok", f"no other order is clearly better: {best}", details=details)
    moved = [f"{classes[label]} is output {output}" for label, output in order.moved.items()]
    found = f"{best} (p = {order.discordance.p:.1g}): {first(moved)}"
    advice = "its classes stood in another order in training: rename the class folders, or reorder its last layer"
    return Finding("label-order", "problem", found, advice, details)


def scale_finding(tried: Sequence[Rescaled]) -> Finding:
    """Say whether the network is shown images in the scale of its training."""
    details = {
        "given": tried[0].given.as_json(),
        "tried": {other.name: {**other.rescaled.as_json(), "p": other.p} for other in tried},
    }
    better = [other for other in tried if other.better]
    if not better:
        found = f"no other scale is clearly better: {_scaled(tried[0])}"
        return Finding("input-scale", "ok", found, details=details)
    found = f"{_scaled(better[0])} (p = {better[0].p:.1g})"
    advice = "its weights were trained with these: normalise so inside the model, and nowhere else"
    return Finding("input-scale", "problem", found, advice, details)


def _given(score: Score) -> str:
    return f"{score.accuracy:.1%} as it is"


def _scaled(tried: Rescaled) -> str:
    shown = f"{tried.rescaled.accuracy:.1%} where the network is shown {tried.name}"
    return f"{_given(tried.given)}, {shown}, on {tried.given.total} images"
