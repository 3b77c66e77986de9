"""Which runs are the same: what their configurations decide, without what changes nothing, as a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from autolora.experiments.config import IMMATERIAL, RunConfig, config_from
from autolora.experiments.one_form import in_one_form

LENGTH = 12  # hexadecimal digits: two of a thousand runs would meet once in a billion


def canonical(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's options decide, in one form: whatever is a default is left out.

    So two tables that ask for the same run find each other, and a later version with more options finds the runs of an
    earlier one. See :func:`autolora.experiments.one_form.in_one_form`.

    Args:
        options: Of ``autolora fit``, by name; ``data`` may be missing.

    Raises:
        InputError: If an option is unknown.
    """
    values = in_one_form(config_from({"data": "-", **options}))
    usual = {item.name: item.default for item in fields(RunConfig)} | ({} if "data" in options else {"data": "-"})
    return {
        name: value for name, value in values.items() if name not in IMMATERIAL and value not in (None, usual[name])
    }


def identity(options: Mapping[str, Any]) -> str:
    """Return the hash of what options decide: runs with the same one are the same run."""
    text = json.dumps(canonical(options), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
