"""Where data and weights of a scale lie on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from autolora.data import NAMED_SETS
from autolora.errors import InputError
from autolora.experiments.config import suggestion
from autolora.experiments.suites.grid import Job
from autolora.experiments.suites.settings import Place, Settings

OPTIONS: tuple[Literal["data", "weights"], ...] = ("data", "weights")  # options whose values may be names of places


@dataclass(frozen=True)
class Places:
    """What the names of places stand for.

    Args:
        known: What a user may provide, by name.
        given: Paths that a user has provided, by name.
    """

    known: Mapping[str, Place]
    given: Mapping[str, str] = field(default_factory=dict)

    def path(self, name: str) -> str:
        """Return what a value of ``data`` or ``weights`` stands for: itself, unless it names a place.

        Raises:
            InputError: If it is a place that has to be provided, and has not been.
        """
        if name in self.given:
            return self.given[name]
        place = self.known.get(name)
        if place is None:
            return name
        if place.default is None:
            raise InputError(
                f"{name} has to be provided ({place.about or place.kind}); say where it lies with "
                f"--{place.kind} {name}=PATH"
            )
        return place.default

    def check(self, jobs: Iterable[Job]) -> None:
        """Refuse to begin without what the runs need.

        Raises:
            InputError: If something has not been provided, or is not where it was said to be.
        """
        needed = {str(job.options[name]) for job in jobs for name in OPTIONS if name in job.options}
        for name in sorted(needed):
            path = self.path(name)
            if name in self.given and not Path(path).expanduser().exists() and not _is_name(path):
                raise InputError(f"{name}={path}: there is no such file or folder")


def read_places(settings: Iterable[Settings], data: Iterable[str] = (), weights: Iterable[str] = ()) -> Places:
    """Read what a user has provided, each as ``NAME=PATH``, or as ``PATH`` where there is one place of the kind.

    Raises:
        InputError: If there is no place of that name, or a path does not say which it is for.
    """
    known = {name: place for item in settings for name, place in item.places.items()}
    given: dict[str, str] = {}
    for kind, texts in zip(OPTIONS, (data, weights), strict=True):
        names = [name for name, place in known.items() if place.kind == kind]
        for text in texts:
            name, path = _assignment(text, names, kind)
            given[name] = path
    return Places(known, given)


def _assignment(text: str, names: list[str], kind: str) -> tuple[str, str]:
    name, sign, path = text.partition("=")
    if sign and name in names:
        return name, path
    if len(names) == 1:
        return names[0], text
    if not names:
        raise InputError(f"--{kind} {text}: no {kind} can be provided at this scale")
    near = suggestion(name, names) if sign else f"; there are {', '.join(names)}"
    raise InputError(f"--{kind} {text} does not say what it is for; give NAME=PATH{near}")


def _is_name(text: str) -> bool:
    """Whether something is a name that ``autolora fit`` knows rather than a path: a named set, or one with a colon."""
    return text in NAMED_SETS or ":" in text
