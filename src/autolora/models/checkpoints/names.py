"""Names of tensors: what wrappers put before them, where a normaliser hides, and torchvision's names from others'."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = [
    "below",
    "normalizer",
    "shortcut_stem_padding",
    "shown",
    "stem_size",
    "torchvision_names",
    "without_wrappers",
]

State = dict[str, Tensor]

WRAPPERS = ("module.", "_orig_mod.")  # DataParallel and torch.compile put these in front of every name
# a module that normalises, or the model's own buffers; "0." is the first of a sequence
NORMALIZERS = ("normalize.", "normalizer.", "normalization.", "norm_layer.", "0.", "")
MEANS = (("mean", "std"), ("new_mean", "new_std"), ("mu", "sigma"))
MOST_CHANNELS = 16


def shown(text: str, most: int = 200) -> str:
    """Return a text of a file for a message: on one line, without what a terminal would obey, and not too long."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in text[: most + 1])
    return clean if len(clean) <= most else f"{clean[:most]}..."


def without_wrappers(state: Mapping[str, Tensor]) -> State:
    """Take off the prefixes that every name has from DataParallel and torch.compile."""
    state = dict(state)
    while prefix := next((p for p in WRAPPERS if state and all(name.startswith(p) for name in state)), None):
        state = below(state, prefix)
    return state


def below(state: Mapping[str, Tensor], prefix: str) -> State:
    """Return what is below a prefix, without it."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def normalizer(state: Mapping[str, Tensor]) -> tuple[State, tuple[tuple[float, ...], tuple[float, ...]] | None]:
    """Take a normaliser out of a state dict.

    Returns:
        The other tensors, and mean and std per channel, or None if there are none.
    """
    for place in NORMALIZERS:
        for mean, std in MEANS:
            found = [state.get(place + name) for name in (mean, std)]
            if all(value is not None and 0 < value.numel() <= MOST_CHANNELS for value in found):
                rest = {name: value for name, value in state.items() if name not in (place + mean, place + std)}
                means, stds = (tuple(value.flatten().tolist()) for value in found if value is not None)
                return rest, (means, stds)
    return dict(state), None


def torchvision_names(state: Mapping[str, Tensor]) -> State:
    """Give a ResNet of four stages torchvision's names, where its writer calls shortcuts and head otherwise."""
    if "layer4.0.conv1.weight" not in state:
        return dict(state)
    return {re.sub(r"^linear\.", "fc.", name.replace(".shortcut.", ".downsample.")): t for name, t in state.items()}


def shortcut_stem_padding(state: Mapping[str, Tensor]) -> int | None:
    """Return 1 for networks with the names ``shortcut`` or ``linear``: the CIFAR ResNets that have them pad so."""
    named = "linear.weight" in state or any(".shortcut." in name for name in state)
    return 1 if named and stem_size(state) == 3 else None


def stem_size(state: Mapping[str, Tensor]) -> int | None:
    """Return the side of the kernel of a ResNet's stem: 3 for CIFAR's, 7 for ImageNet's; None if there is none."""
    stem = state.get("conv1.weight")
    return None if stem is None or stem.dim() != 4 else int(stem.shape[-1])
