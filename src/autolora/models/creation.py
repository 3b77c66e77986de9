"""Create timm's models, and say in one line what is in the way: an unknown name, no weights, no network."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from autolora.errors import InputError
from autolora.models.hub import fetch, within_reach

__all__ = ["TimmModel", "create", "require_hub"]

FOLDER = "local-dir:"  # timm's word for a folder with a model
ARGUMENTS = "model_args"  # key of config.json and of a model's pretrained_cfg: with what it was built
NO_ARCHITECTURE = ("pretrained", "num_classes")
CONFIG = "config.json"
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
            raise
        raise InputError(f"{_no_weights(name, 'timm has none for it')}") from None
    except (OSError, ValueError) as error:  # huggingface_hub and requests raise subclasses of OSError when offline
        if not arguments.get("pretrained"):
            raise InputError(f"model {name!r} cannot be built: {error}") from None
        raise InputError(_no_weights(name, f"{type(error).__name__}: could not be fetched")) from None
    except Exception as error:
        if name.startswith(FOLDER):
            raise _not_built(name, error) from None
        if isinstance(error, TypeError):  # of an argument that the architecture does not take
            raise InputError(f"model {name!r} cannot be built with {dict(arguments)} ({error})") from None
        raise
    built_with = {**_recorded(name), **arguments}
    kept = {argument: value for argument, value in built_with.items() if argument not in NO_ARCHITECTURE}
    model.pretrained_cfg = {**model.pretrained_cfg, ARGUMENTS: kept}
    return model


def _recorded(name: str) -> dict[str, Any]:
    """Return the arguments that timm has found recorded with a model, in a folder or on the hub, and has taken."""
    source, _, place = name.partition(":")
    if source == "local-dir":
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
