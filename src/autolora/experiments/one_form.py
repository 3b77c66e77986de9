"""What the options of a run decide, in one form: an option that is set to its default is one that is not set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from inspect import Parameter, signature
from typing import Any

from autolora.experiments.config import RunConfig
from autolora.methods import METHODS
from autolora.schedules import SCHEDULES
from autolora.threat import format_radius, parse_radius


def in_one_form(config: RunConfig) -> dict[str, Any]:
    """Return every option, written in one form.

    A rank is an option of its method, 8/255 and 0.03137... are one radius, 2 and 2.0 one exponent; options of a method
    or a schedule that are at their defaults are left out, and None stands for an empty set of them.

    Raises:
        InputError: If a radius is none.
    """
    values = {item.name: getattr(config, item.name) for item in fields(RunConfig)}
    for name in ("eps", "step_size"):
        if values[name] is not None:
            values[name] = format_radius(parse_radius(values[name], name.replace("_", "-")))
    values["method_options"], values["rank"] = _method_options(config) or None, None
    values["schedule_options"] = _schedule_options(config) or None
    return {name: _plain(value) for name, value in values.items()}


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options in one form without sets of them within: ``rank``, ``method_options.alpha``."""
    found = dict(values)
    for group in ("method_options", "schedule_options"):
        for name, value in (found.pop(group) or {}).items():
            found["rank" if name == "rank" else f"{group}.{name}"] = value
    return {name: value for name, value in found.items() if value is not None}


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
