"""Findings about the data: pictures in two splits or under two labels, blank ones, and rare classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from os.path import commonpath

from autolora.data import Splits
from autolora.data.duplicates import Duplicates, Twin
from autolora.experiments.diagnosis import Finding, Status, first

MANY = 0.02  # share of images from which near-copies are a problem: they move the accuracy by as much
RARE = 10  # times that the largest class is larger than the smallest, from which it is worth a note


def data_findings(splits: Splits, found: Duplicates) -> list[Finding]:
    """Check a data set."""
    return [
        duplicates_finding(splits, found),
        conflicts_finding(splits, found),
        blank_finding(splits, found),
        balance_finding(splits),
    ]


def duplicates_finding(splits: Splits, found: Duplicates) -> Finding:
    """Say how many held-out images are among those that are learnt from."""
    test = [twin for twin in found.leaks if twin.split == "test"]
    val = [twin for twin in found.leaks if twin.split == "val"]
    exact = sum(twin.exact for twin in test)
    details = {
        "test": len(test),
        "test_exact": exact,
        "val": len(val),
        "repeats": found.repeats,
        "near_copies_told_apart": found.told_apart,
        "alikeness": found.alikeness,
        "pairs": [asdict(twin) for twin in found.leaks],
    }
    text = f"{len(test)} of {len(splits.test)} test images are in train or val too"
    text += f" ({exact} exactly): {_pairs(test, splits)}" if test else ""
    text += f"; {len(val)} of {len(splits.val)} validation images are in train" if val else ""
    text += f"; {found.repeats} training images repeat another" if found.repeats else ""
    if not found.told_apart:
        text += (
            f"; only exact copies were looked for, since all images are alike (typical likeness {found.alikeness:.2f})"
        )
    status: Status = "problem" if exact or len(test) > MANY * len(splits.test) else "note" if test or val else "ok"
    advice = "take them out of one split: a model that has seen an image need not understand it" if test or val else ""
    return Finding("duplicates", status, text, advice, details)


def conflicts_finding(splits: Splits, found: Duplicates) -> Finding:
    """Say how many pictures have two labels."""
    total = sum(len(images) for images in (splits.train, splits.val, splits.test))
    details = {"conflicts": [asdict(twin) for twin in found.conflicts]}
    if not found.conflicts:
        return Finding("label-conflicts", "ok", f"no picture of {total} has two labels", details=details)
    exact = sum(twin.exact for twin in found.conflicts)
    count = f"{len(found.conflicts)} images have a twin of another class"
    text = f"{count} ({exact} exactly): {_pairs(found.conflicts, splits)}"
    status: Status = "problem" if exact or len(found.conflicts) > MANY * total else "note"
    return Finding("label-conflicts", status, text, "decide on one class, and take the other image out", details)


def blank_finding(splits: Splits, found: Duplicates) -> Finding:
    """Say how many images show nothing."""
    total = sum(len(images) for images in (splits.train, splits.val, splits.test))
    details = {"blank": list(found.blank)}
    if not found.blank:
        return Finding("blank-images", "ok", f"none of {total} images is uniform", details=details)
    text = f"{len(found.blank)} of {total} images are uniform: {first(_shortened(found.blank, splits))}"
    return Finding("blank-images", "note", text, "take them out: nothing can be learnt from them", details)


def balance_finding(splits: Splits) -> Finding:
    """Say how unlike the sizes of the classes are."""
    sizes = splits.train.labels.bincount(minlength=len(splits.classes)).tolist()
    tested = splits.test.labels.bincount(minlength=len(splits.classes)).tolist()
    fewest, most = min(sizes), max(sizes)
    details = {
        "train": dict(zip(splits.classes, sizes, strict=True)),
        "test": dict(zip(splits.classes, tested, strict=True)),
    }
    text = f"{fewest} to {most} training images a class" if fewest != most else f"{most} training images a class"
    if fewest * RARE > most:
        return Finding("class-balance", "ok", text, details=details)
    rarest = [
        f"{name!r} has {size}" for size, name in sorted(zip(sizes, splits.classes, strict=True)) if size * RARE <= most
    ]
    advice = "accuracy over all images says little about rare classes: look at them one by one"
    return Finding("class-balance", "note", f"{text}: {first(rarest)}", advice, details)


def _pairs(twins: Sequence[Twin], splits: Splits) -> str:
    names = _shortened([twin.name for twin in twins], splits)
    others = _shortened([twin.other_name for twin in twins], splits)
    likeness = [f"{twin.likeness:.3g}" for twin in twins]
    return first([f"{a} and {b} ({like})" for a, b, like in zip(names, others, likeness, strict=True)])


def _shortened(names: Sequence[str], splits: Splits) -> list[str]:
    """Quote paths without what all images of the data set begin with."""
    common = commonpath([*splits.train.names, *splits.val.names, *splits.test.names])
    return [repr(name[len(common) :].lstrip("/\\")) for name in names]
