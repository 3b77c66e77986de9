"""solo-learn and DeACL, whose code grew from it: a backbone, and beside it what self-supervised training needs.

Both give a ResNet that is to see CIFAR images a 3x3 stem that pads by 2, not by 1 as everyone else: maps of 34x34. The
weights fit both stems, and see something else in the wrong one. Both train a linear classifier beside the backbone, on
its detached features; it is kept as the head.

solo-learn normalises outside of the model, with the values of the data set. DeACL's ResNet-18 holds its normaliser
(CIFAR-10's values); of a file without one RobustSSL's code makes ImageNet's, and that is taken here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from autolora.models.checkpoints.contents import IMAGENET, Checkpoint, Contents, Format, Misfit, Normalization
from autolora.models.checkpoints.dual_norm import adversarial_branch
from autolora.models.checkpoints.names import below, normalizer, stem_size
from autolora.pickles import Record

__all__ = ["DEACL", "SOLO_LEARN"]

STEM_PADDING = 2
BACKBONES = ("backbone.", "encoder.")  # the second is solo-learn's older name
DATA = {
    "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "CIFAR-10's"),
    "cifar100": Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), "CIFAR-100's"),
    "stl10": Normalization((0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261), "STL-10's"),
    "imagenet": IMAGENET,
    "imagenet100": IMAGENET,
}
BY_CLASSES = {10: "cifar10", 100: "cifar100"}


def fits_solo_learn(contents: Contents) -> bool:
    """Whether there is a backbone, with nothing of DeACL's."""
    return _prefix(contents) is not None and not contents.holds("classifier_adv.", "backbone.normalize.")


def fits_deacl(contents: Contents) -> bool:
    """Whether there is a backbone, with something of DeACL's or nothing of solo-learn's."""
    marks = contents.holds("classifier_adv.", "backbone.normalize.")
    bare = all(name.startswith("backbone.") for name in contents.state) and "hyper_parameters" not in contents.root
    return _prefix(contents) == "backbone." and (marks or bare)


def read_solo_learn(contents: Contents) -> Checkpoint:
    """Take the backbone and its classifier; the normalisation is that of the data that the file names.

    Raises:
        Misfit: If there is no backbone.
    """
    state = _backbone(contents)
    padding = STEM_PADDING if stem_size(state) == 3 else None
    return Checkpoint(state, _data(contents, state), padding)


def read_deacl(contents: Contents) -> Checkpoint:
    """Take the student, not the teacher (``momentum_backbone``); of two batch norms the adversarial one.

    Raises:
        Misfit: If there is no backbone.
    """
    state, found = normalizer(adversarial_branch(_backbone(contents)))
    padding = STEM_PADDING if stem_size(state) == 3 else None
    return Checkpoint(state, Normalization(*found, "in the file") if found else IMAGENET, padding)


def _prefix(contents: Contents) -> str | None:
    if contents.holds("encoder.layers."):  # torchvision's transformers
        return None
    return next((prefix for prefix in BACKBONES if contents.holds(prefix)), None)


def _backbone(contents: Contents) -> dict[str, Tensor]:
    prefix = "" if "conv1.weight" in contents.state else _prefix(contents)  # taken out of its file by someone
    if prefix is None:
        raise Misfit("nothing in it is named 'backbone.'")
    head = "head" if contents.holds(f"{prefix}blocks.") else "fc"
    classifier = {f"{head}.{name}": value for name, value in below(contents.state, "classifier.").items()}
    return {**below(contents.state, prefix), **classifier}


def _data(contents: Contents, state: Mapping[str, Tensor]) -> Normalization:
    """Find out what images the backbone was trained on, and how they were normalised."""
    name = _entry(contents.root.get("hyper_parameters"), "dataset")
    if isinstance(name, str) and name in DATA:
        return DATA[name]
    if stem_size(state) != 3:
        return IMAGENET
    classes = len(state["fc.weight"]) if "fc.weight" in state else 0
    values = DATA[BY_CLASSES.get(classes, "cifar10")]
    heads = f" and {classes} classes" if classes else ""
    origin = f"{values.origin}, going by the stem{heads}: the file does not name its data"
    return Normalization(values.mean, values.std, origin)


def _entry(content: Any, key: str) -> Any:
    """Find an entry in nested settings, whatever package they come from; the outermost counts."""
    queue = deque([content])
    for _ in range(1000):  # settings can hold themselves
        if not queue:
            return None
        value = queue.popleft()
        if isinstance(value, Record):
            queue.extend([value.items, value.state])
        elif isinstance(value, Mapping):
            if key in value:
                return _text(value[key])
            queue.extend(value.values())
    return None


def _text(value: Any) -> Any:
    """Unwrap a leaf of OmegaConf's."""
    return value.state.get("_val") if isinstance(value, Record) and isinstance(value.state, dict) else value


SOLO_LEARN = Format(
    "solo-learn",
    "solo-learn (BYOL, SimCLR, ...): the links in its README",
    fits_solo_learn,
    read_solo_learn,
)
DEACL = Format("deacl", "DeACL (Zhang et al., 2022): the link in its README", fits_deacl, read_deacl)
