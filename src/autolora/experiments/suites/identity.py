"""Which runs are the same: what their configurations decide, without what changes nothing, as a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from inspect import Parameter, signature
from typing import Any

from autolora.experiments.config import RunConfig, config_from
from autolora.methods import METHODS
from autolora.schedules import SCHEDULES
from autolora.threat import format_radius, parse_radius

IMMATERIAL = ("out", "workers", "device", "skip_bad_images", "data_root", "track")
LENGTH = 12  # hexadecimal digits: two of a thousand runs would meet once in a billion


def canonical(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's options decide, in one form: whatever is a default is left out.

    A rank is an option of its method, 8/255 and 0.03137... are one radius, and an option that is set to its default is
    the same as one that is not set. So two tables that ask for the same run find each other, and a later version with
    more options finds the runs of an earlier one.

    Args:
        options: Of ``autolora fit``, by name; ``data`` may be missing.

    Raises:
        InputError: If an option is unknown.
    """
    config = config_from({"data": "-", **options})
    defaults = {item.name: item.default for item in fields(RunConfig)}
    values = {name: getattr(config, name) for name in defaults if name not in (*IMMATERIAL, "data")}
    values |= {"data": options["data"]} if "data" in options else {}
    for name in ("eps", "step_size"):
        if values[name] is not None:
            values[name] = format_radius(parse_radius(values[name], name.replace("_", "-")))
    values["method_options"], values["rank"] = _method_options(config), None
    values["schedule_options"] = _schedule_options(config)
    return {name: _plain(value) for name, value in values.items() if value not in (None, {}, defaults[name])}


def identity(options: Mapping[str, Any]) -> str:
    """Return the hash of what options decide: runs with the same one are the same run."""
    text = json.dumps(canonical(options), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, with one form for a number: 2 and 2.0 are the same exponent."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _method_options(config: RunConfig) -> dict[str, Any]:
    given = dict(config.method_options or {}) | ({} if config.rank is None else {"rank": config.rank})
    known = fields(METHODS[config.method]) if config.method in METHODS else ()
    defaults = {item.name: item.default for item in known if item.default is not MISSING}
    return {name: value for name, value in given.items() if name not in defaults or value != defaults[name]}


def _schedule_options(config: RunConfig) -> dict[str, Any]:
    parameters = signature(SCHEDULES[config.schedule]).parameters
    defaults = {name: item.default for name, item in parameters.items() if item.default is not Parameter.empty}
    given = config.schedule_options or {}
    return {name: value for name, value in given.items() if name not in defaults or value != defaults[name]}
