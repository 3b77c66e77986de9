"""The adversarially trained ImageNet models of Salman et al. (2020), by name: ``salman2020:resnet18_linf_eps4.0``.

"Do Adversarially Robust ImageNet Models Transfer Better?"; the authors' mirror on the Hugging Face hub holds them in
the ``robustness`` format. The names say the norm, and eps: in pixel units for L2, in 1/255 of them for Linf. Models of
eps 0 are trained without an attack. The collection has ShuffleNet-v2 besides, which timm has not.
"""

from __future__ import annotations

from autolora.errors import InputError

__all__ = ["COLLECTION", "PREFIX", "REPOSITORY", "file_of", "is_salman", "summary_of"]

PREFIX = "salman2020:"
REPOSITORY = "madrylab/robust-imagenet-models"
ALL_L2 = ("0", "0.01", "0.03", "0.05", "0.1", "0.25", "0.5", "1", "3", "5")
LINF = ("0.5", "1.0", "2.0", "4.0", "8.0")
RADII = {  # by the collection's name of an architecture: L2, Linf
    "resnet18": (ALL_L2, LINF),
    "resnet50": (ALL_L2, LINF),
    "wide_resnet50_2": (ALL_L2, LINF),
    "wide_resnet50_4": (ALL_L2, ()),
    "densenet": (("0", "3"), ()),
    "resnext50_32x4d": (("0", "3"), ()),
    "mnasnet": (("0", "3"), ()),
    "mobilenet": (("0", "3"), ()),
    "vgg16_bn": (("0", "3"), ()),
}
TIMM_NAMES = {"densenet": "densenet161", "mnasnet": "mnasnet_100", "mobilenet": "mobilenetv2_100"}  # where they differ

COLLECTION: dict[str, str] = {
    f"{PREFIX}{name}_{norm}_eps{eps}": TIMM_NAMES.get(name, name)
    for name, radii in RADII.items()
    for norm, values in zip(("l2", "linf"), radii, strict=True)
    for eps in values
}
"""timm's architecture of every model, by the name to ask for it."""


def is_salman(name: str) -> bool:
    """Whether a name is meant to be of this collection."""
    return name.startswith(PREFIX)


def file_of(name: str) -> str:
    """Return the file that holds a model of the collection.

    Raises:
        InputError: If there is none of this name; the message lists what there is.
    """
    if name not in COLLECTION:
        names = ", ".join(RADII)
        raise InputError(
            f"{name!r} is not in the collection of Salman et al.; names are {PREFIX}ARCHITECTURE_NORM_epsEPS, such as "
            f"{PREFIX}resnet18_linf_eps4.0, for {names} (`autolora models --filter 'salman2020*'` lists them)"
        )
    return f"{name.removeprefix(PREFIX)}.ckpt"


def summary_of(name: str) -> str:
    """Say what a model of the collection is, in a line: architecture and threat model."""
    _, norm, eps = name.rsplit("_", 2)
    radius = eps.removeprefix("eps")
    if float(radius) == 0:
        return f"{COLLECTION[name]}, trained on ImageNet without an attack"
    threat = f"Linf {float(radius):g}/255" if norm == "linf" else f"L2 {radius}"
    return f"{COLLECTION[name]}, adversarially trained on ImageNet, {threat}"
