"""Adversarial contrastive learning, whose networks have a batch norm for each kind of input: ACL's family and AdvCL's.

Every batch norm is a list, ``bn1.bn_list.{0,1}``: 0 has seen natural images, 1 adversarial ones (AdvCL has a third for
its pseudo-labels). Branch 1 is the robust network, the one that is evaluated and fine-tuned (RobustSSL).

ACL, DynACL, AIR and RCS hold ImageNet's normaliser in the network, though their images are CIFAR's. AdvCL and A-InfoNCE
hold none, and take images as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from autolora.models.checkpoints.contents import IMAGENET, RAW, Checkpoint, Contents, Format, Misfit, Normalization
from autolora.models.checkpoints.names import below, normalizer, stem_size, without_wrappers

__all__ = ["ACL", "ADVCL", "adversarial_branch"]

ADVERSARIAL = ".bn_list.1."
BRANCH = re.compile(r"\.bn_list\.\d+\.")
SINGLE = (".downsample.conv.weight", "fc.fc1.weight")  # names that ACL's ResNet alone has
ENCODERS = ("encoder_k.", "encoder_q.")  # with momentum, the one that ACL's family evaluates, and without
# projections, predictions and classifiers of pseudo-labels; "fc.weight" alone is a classifier
TRAINING_HEADS = re.compile(r"(fc\.(fc|bn)\d|fc_\d+|head_(ce|proj|pred)|linear_contrast)\b")


def adversarial_branch(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep branch 1 of every batch norm, by torchvision's names; a network with one batch norm stays as it is."""
    kept = {
        name.replace(ADVERSARIAL, "."): value
        for name, value in state.items()
        if ADVERSARIAL in name or not BRANCH.search(name)
    }
    shortcuts = {".downsample.conv.": ".downsample.0.", ".downsample.bn.": ".downsample.1."}
    for theirs, ours in shortcuts.items():
        kept = {name.replace(theirs, ours): value for name, value in kept.items()}
    return kept


def fits_acl(contents: Contents) -> bool:
    """Whether there are two batch norms, or ACL's own names; and a normaliser or an encoder with momentum."""
    return (_is_dual(contents) and not _is_raw(contents)) or _is_single(contents)


def fits_advcl(contents: Contents) -> bool:
    """Whether there are two batch norms or more, and no normaliser."""
    return _is_dual(contents) and _is_raw(contents)


def read_acl(contents: Contents) -> Checkpoint:
    """Take the encoder that is evaluated, its adversarial branch, and its normaliser.

    Raises:
        Misfit: If there is no stem of a ResNet.
    """
    encoder = next((prefix for prefix in ENCODERS if contents.holds(prefix)), "")
    state, found = normalizer(_network(below(contents.state, encoder)))
    return Checkpoint(state, Normalization(*found, "in the file") if found else IMAGENET, _padding(state))


def read_advcl(contents: Contents) -> Checkpoint:
    """Take the adversarial branch.

    Raises:
        Misfit: If there is no stem of a ResNet.
    """
    state, found = normalizer(_network(contents.state))
    return Checkpoint(state, Normalization(*found, "in the file") if found else RAW, _padding(state))


def _network(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the network by torchvision's names, without the heads that only training needs."""
    kept = {name: value for name, value in without_wrappers(state).items() if not TRAINING_HEADS.match(name)}
    if "conv1.weight" not in kept:
        raise Misfit("no stem 'conv1' is in it")
    return adversarial_branch(kept)


def _padding(state: Mapping[str, Tensor]) -> int | None:
    """Return the padding of a 3x3 stem, which all of them have for CIFAR."""
    return 1 if stem_size(state) == 3 else None


def _is_dual(contents: Contents) -> bool:
    return any(BRANCH.search(name) for name in contents.state) and not contents.holds("backbone.")


def _is_single(contents: Contents) -> bool:
    """Whether it is of ACL's family after its second phase (DynACL++): its own names, and one batch norm everywhere."""
    own = any(name.endswith(SINGLE) for name in contents.state)
    return own and not _is_raw(contents) and not contents.holds("backbone.")


def _is_raw(contents: Contents) -> bool:
    return not contents.holds("normalize.", "fc.fc1.", *ENCODERS)


ACL = Format("acl", "ACL, DynACL, AIR and RCS: the links in RobustSSL's README", fits_acl, read_acl)
ADVCL = Format("advcl", "AdvCL and A-InfoNCE: the links in RobustSSL's README", fits_advcl, read_advcl)
