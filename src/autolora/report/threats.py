"""Runs under several threat models on one page: every attacked number then says under which it was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from autolora.errors import InputError
from autolora.report.collected import CollectedRun
from autolora.report.evaluations import NATURAL
from autolora.report.wording import attack_title


def differing_threats(runs: Sequence[CollectedRun]) -> dict[str, str]:
    """Return the threat model of each run by its name, such as ``Linf 8/255``; nothing where all have the same one."""
    found = {}
    for run in runs:
        with suppress(InputError):  # an unfinished run whose configuration names none has no attacked numbers
            found[run.name] = str(run.threat)
    return found if len(set(found.values())) > 1 else {}


def title_under(attack: str, run: CollectedRun, threats: Mapping[str, str]) -> str:
    """Write the key of a score in words, and the threat model of the run with it if there are several.

    Args:
        attack: The key.
        run: Whose score it is.
        threats: What :func:`differing_threats` says of the runs on the page.
    """
    threat = threats.get(run.name, "") if attack != NATURAL else ""
    return f"{attack_title(attack)}, {threat}" if threat else attack_title(attack)


def name_under(run: CollectedRun, threats: Mapping[str, str]) -> str:
    """Return the name of a run for a legend, with its threat model if there are several."""
    return f"{run.name}, attacked under {threats[run.name]}" if run.name in threats else run.name
