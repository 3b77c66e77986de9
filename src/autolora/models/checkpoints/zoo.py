"""State dicts of model collections: RobustBench, torchvision, timm, the CIFAR ResNets of He et al., and any other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import timm

from autolora.models.checkpoints.contents import IMAGENET, RAW, Checkpoint, Contents, Format, Misfit, Normalization
from autolora.models.checkpoints.layouts import layout_of
from autolora.models.checkpoints.names import below, normalizer, shortcut_stem_padding, stem_size, torchvision_names
from autolora.models.creation import architectural
from autolora.pickles import Record

__all__ = ["CIFAR_RESNET", "PLAIN", "ROBUSTBENCH", "TIMM", "TORCHVISION"]

VIT_NAMES = (  # torchvision's, and timm's for the same tensor
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
)


def _in_file(found: tuple[tuple[float, ...], tuple[float, ...]] | None) -> Normalization | None:
    return Normalization(*found, "in the file") if found else None


def _recorded_architecture(contents: Contents) -> str | None:
    """Return the architecture that a training script noted, if timm has it."""
    name = contents.root.get("arch")
    return name if isinstance(name, str) and timm.is_model(name) else None


# RobustBench


def fits_robustbench(contents: Contents) -> bool:
    """Whether there is a model below its normaliser, or a normaliser of the names that the zoo uses."""
    inner = contents.holds("model.") and not contents.holds("attacker.", "normalizer.new_")
    return (inner and contents.holds("normalize.")) or {"mu", "sigma"} <= contents.state.keys()


def read_robustbench(contents: Contents) -> Checkpoint:
    """Take the model out of the wrapper, and the normaliser.

    Without one, networks for CIFAR take images as they are, as almost all in the zoo do, and others ImageNet's values.
    """
    state, found = normalizer(contents.state)
    if state and all(name.startswith("model.") for name in state):
        state = below(state, "model.")
    default = RAW if stem_size(state) == 3 else IMAGENET
    return Checkpoint(torchvision_names(state), _in_file(found) or default, shortcut_stem_padding(state))


# torchvision


def fits_torchvision(contents: Contents) -> bool:
    """Whether it is one of torchvision's transformers, MobileNets, MNASNets and VGGs, or a ResNet with ImageNet's stem.

    Nothing else may be in it.
    """
    if layout_of(contents.state) is not None:
        return True
    resnet = stem_size(contents.state) == 7 and "layer4.0.conv1.weight" in contents.state
    bare = normalizer(contents.state)[1] is None and not fits_timm(contents)
    return contents.holds("encoder.layers.encoder_layer_0.") or (resnet and bare)


def read_torchvision(contents: Contents) -> Checkpoint:
    """Give transformers, MobileNets, MNASNets and VGGs timm's names; those of the ResNets are the same."""
    state = contents.state
    if (layout := layout_of(state)) is not None:
        return Checkpoint(layout.state, IMAGENET, architecture=layout.architecture)
    if contents.holds("encoder.layers."):
        for theirs, ours in VIT_NAMES:
            state = {re.sub(theirs, ours, name): value for name, value in state.items()}
    return Checkpoint(state, IMAGENET, architecture=_recorded_architecture(contents))


# timm


def fits_timm(contents: Contents) -> bool:
    """Whether timm's ``config.json`` lies beside it, or timm's training script wrote it."""
    return bool(contents.config) or ("arch" in contents.root and "args" in contents.root)


def read_timm(contents: Contents) -> Checkpoint:
    """Take architecture, normalisation and stem from what timm recorded."""
    config = contents.config
    recorded = _settings(config.get("pretrained_cfg", contents.root.get("args")))
    mean, std = (_sequence(recorded.get(value)) for value in ("mean", "std"))
    where = "in config.json beside the file" if config else "in the file"
    name, arguments = config.get("architecture"), _settings(config.get("model_args"))
    padding = arguments.get("stem_padding")
    return Checkpoint(
        contents.state,
        Normalization(mean, std, where) if mean and std else None,
        padding if isinstance(padding, int) else None,
        name if isinstance(name, str) else _recorded_architecture(contents),
        arguments=architectural(arguments),
    )


def _settings(settings: Any) -> Mapping[Any, Any]:
    """Return settings as a dictionary: that of a configuration file, or the arguments that a command line parsed."""
    content = settings.state if isinstance(settings, Record) else settings
    return content if isinstance(content, dict) else {}


def _sequence(values: Any) -> tuple[Any, ...]:
    """Return values for each channel, or nothing if they were left to the architecture."""
    return tuple(values) if isinstance(values, list | tuple) else ()


# the CIFAR ResNets of He et al. (2016), section 4.2


def fits_cifar_resnet(contents: Contents) -> bool:
    """Whether there are three stages without parameters in their shortcuts, and the head ``linear``."""
    stages = {name.split(".")[0] for name in contents.state if name.startswith("layer")}
    shortcuts = any(".shortcut." in name or ".downsample." in name for name in contents.state)
    return stages == {"layer1", "layer2", "layer3"} and "linear.weight" in contents.state and not shortcuts


def read_cifar_resnet(contents: Contents) -> Checkpoint:
    """Take it as it is: the published ones were trained on images that were normalised as ImageNet's are."""
    state, found = normalizer(contents.state)
    return Checkpoint(state, _in_file(found) or IMAGENET)


# anything else


def fits_nothing(contents: Contents) -> bool:
    """Leave it to the others."""
    return False


def read_plain(contents: Contents) -> Checkpoint:
    """Take it as it is, and the normaliser if there is one."""
    state, found = normalizer(contents.state)
    if found and state and all(name.startswith("1.") for name in state):  # a sequence of normaliser and model
        state = below(state, "1.")
    if not state:
        raise Misfit("nothing but a normaliser is in it")
    padding, recorded = shortcut_stem_padding(state), _recorded_architecture(contents)
    return Checkpoint(torchvision_names(state), _in_file(found), padding, recorded)


ROBUSTBENCH = Format(
    "robustbench", "RobustBench's model zoo: the files that it fetches", fits_robustbench, read_robustbench
)
TORCHVISION = Format(
    "torchvision",
    "torchvision, for its ResNets, ViTs, VGGs, MobileNet-v2 and MNASNets: the addresses in its documentation",
    fits_torchvision,
    read_torchvision,
)
TIMM = Format("timm", "timm: the Hugging Face hub, its training script, and model/ of a run", fits_timm, read_timm)
CIFAR_RESNET = Format(
    "cifar-resnet",
    "CIFAR ResNet-20, 32 and 56 of He et al. (2016), such as resnet20-12fca82f.th",
    fits_cifar_resnet,
    read_cifar_resnet,
)
PLAIN = Format("plain", "any other state dict, by the names of timm's architecture", fits_nothing, read_plain)
