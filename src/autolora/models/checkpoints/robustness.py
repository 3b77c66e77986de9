"""The ``robustness`` package of MadryLab, and the ImageNet models of Salman et al. (2020) that were trained with it.

``AttackerModel`` wraps a classifier: the file holds every tensor twice, as ``model.*`` and as ``attacker.model.*``, and
the normaliser of the data set twice beside them. Architectures that the package does not know itself stand in one
wrapper more, ``model.model.*``. The file is written with dill, with the optimizer and the schedule in it.
"""

from __future__ import annotations

from autolora.models.checkpoints.contents import Checkpoint, Contents, Format, Misfit, Normalization
from autolora.models.checkpoints.layouts import layout_of
from autolora.models.checkpoints.names import below, normalizer, shortcut_stem_padding, torchvision_names

__all__ = ["ROBUSTNESS"]


def fits(contents: Contents) -> bool:
    """Whether there is an attacker beside the model, or the package's own normaliser."""
    return contents.holds("attacker.", "normalizer.new_")


def read(contents: Contents) -> Checkpoint:
    """Take the model once, and the normaliser.

    Raises:
        Misfit: If one of them is missing.
    """
    model = below(contents.state, "model.")
    if not model:
        raise Misfit("nothing in it is named 'model.'")
    if all(name.startswith("model.") for name in model):
        model = below(model, "model.")
    rest = {name: value for name, value in contents.state.items() if not name.startswith("model.")}
    _, found = normalizer({name.replace("attacker.normalize.", "normalizer."): value for name, value in rest.items()})
    if found is None:
        raise Misfit("no normaliser is in it")
    normalization, layout = Normalization(*found, "in the file"), layout_of(model)
    if layout is not None:
        return Checkpoint(layout.state, normalization, architecture=layout.architecture)
    return Checkpoint(torchvision_names(model), normalization, shortcut_stem_padding(model))


ROBUSTNESS = Format(
    "robustness",
    "MadryLab/robustness and Salman et al. (2020): salman2020:NAME, or madrylab/robust-imagenet-models on the hub",
    fits,
    read,
)
