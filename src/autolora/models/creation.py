"""Create timm's models, and say in one line what is in the way: an unknown name, no weights, no network."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models._input import get_model_args  # what save_for_hf writes beside every model

from autolora.errors import InputError
from autolora.models.hub import fetch, within_reach

__all__ = ["TimmModel", "create", "require_hub"]

FOLDER = "local-dir:"  # timm's word for a folder with a model
ARGUMENTS = "model_args"  # key of config.json and of a model's pretrained_cfg: with what it was built
# timm's own, which are about weights and files
NO_ARCHITECTURE = (*signature(timm.create_model).parameters, "num_classes", "features_only", "out_indices")
OURS = ("pretrained", "num_classes", "img_size", "stem_padding")  # arguments that this package gives by itself
CONFIG = "config.json"  # of a folder in timm's format
TimmModel = Any  # an nn.Module with timm's interface (pretrained_cfg, reset_classifier, ...), which timm does not type


def create(name: str, arguments: Mapping[str, Any]) -> TimmModel:
    """Create a model of timm's, as ``timm.create_model`` does.

    Raises:
        InputError: If timm does not know the name, or cannot build it or get its weights.
    """
    try:
        model: TimmModel = timm.create_model(name, **arguments)
    except RuntimeError as error:
        if "Unknown model" in str(error):
            raise InputError(
                f"model {name!r} is unknown to timm{_suggestion(name)}; `autolora models` lists names"
            ) from None
        if name.startswith(FOLDER):
            raise _not_built(name, error) from None
        if "No pretrained weights" not in str(error):
            raise _not_built_with(name, arguments, error) from None
        raise InputError(f"{_no_weights(name, 'timm has none for it')}") from None
    except (OSError, ValueError) as error:  # huggingface_hub and requests raise subclasses of OSError when offline
        if not arguments.get("pretrained"):
            raise InputError(f"model {name!r} cannot be built: {error}") from None
        raise InputError(_no_weights(name, f"{type(error).__name__}: could not be fetched")) from None
    except Exception as error:
        if name.startswith(FOLDER):
            raise _not_built(name, error) from None
        raise _not_built_with(name, arguments, error) from None
    built_with = architectural({**_recorded(name), **arguments})
    model.pretrained_cfg = {**model.pretrained_cfg, ARGUMENTS: _beyond_the_plain(model, built_with)}
    return model


def architectural(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a model's arguments that decide what it computes; the rest is about weights and files."""
    return {name: value for name, value in arguments.items() if name not in NO_ARCHITECTURE}


def _beyond_the_plain(model: TimmModel, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what timm writes beside every model, and the plain one of its name has too, such as ``in_chans``."""
    if not arguments:
        return {}
    with torch.device("meta"):
        plain = get_model_args(timm.create_model(model.pretrained_cfg["architecture"]))
    return {name: value for name, value in arguments.items() if name not in plain or plain[name] != value}


def _not_built_with(name: str, arguments: Mapping[str, Any], error: Exception) -> Exception:
    """Return the error itself, unless it is about arguments that came with weights."""
    given = {argument: value for argument, value in arguments.items() if argument not in OURS}
    if not given:
        return error
    return InputError(
        f"model {name!r} cannot be built with {given}, which config.json beside its weights asks for ({error}); fetch "
        "them again"
    )


def _recorded(name: str) -> dict[str, Any]:
    """Return the arguments that timm has found recorded with a model, in a folder or on the hub, and has taken."""
    source, _, place = name.partition(":")
    if name.startswith(FOLDER):
        config = Path(place) / CONFIG
    elif source in ("hf-hub", "hf_hub"):
        config = fetch(place, CONFIG)
    else:
        return {}
    return dict(json.loads(config.read_text(encoding="utf-8")).get(ARGUMENTS) or {})


def _not_built(name: str, error: Exception) -> InputError:
    """Return the error for a folder whose files do not make a model; whoever wrote them can have asked for anything."""
    reason = " ".join(str(error).split())[:200] or "no reason given"
    if "weights_only" in str(error):  # a page on how to run the code all the same
        reason = "the weights are a pickle with more than tensors in it, which is not loaded"
    return InputError(
        f"{name.removeprefix(FOLDER)}: its files do not make a model ({type(error).__name__}: {reason}); fetch or "
        "export it again"
    )


def require_hub(name: str, repository: str | None) -> None:
    """Say at once that weights cannot be fetched.

    Args:
        name: What the user calls the model.
        repository: ORG/NAME on the hub; None if none is needed.

    Raises:
        InputError: If they are not in the cache, and the hub is out of reach.
    """
    try:
        reachable = repository is None or within_reach(repository)
    except ValueError as error:  # the hub's client checks names
        raise InputError(f"model {name!r} is no name on the hub: {error}") from None
    if not reachable:
        reason = f"{repository} is not in this machine's cache, and the hub cannot be reached"
        raise InputError(_no_weights(name, reason))


def _no_weights(name: str, reason: str) -> str:
    return (
        f"model {name!r}: no pre-trained weights ({reason}); go online, give a checkpoint with --weights FILE, "
        "start from random weights with --weights none, or leave --model out for the packaged robust backbone"
    )


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, timm.list_models(), n=3)
    return f"; did you mean {', '.join(close)}?" if close else ""
