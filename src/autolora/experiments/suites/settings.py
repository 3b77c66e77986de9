"""What the levels of a grid mean to ``autolora fit`` at one scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Options = Mapping[str, Any]  # of `autolora fit`, by the names of RunConfig; names of places for data and weights


@dataclass(frozen=True)
class Place:
    """Something that a user may have to provide: a data set, or a file of weights.

    Args:
        kind: What it is.
        about: What has to be provided, in words.
        default: What ``autolora fit`` takes if nothing is provided; None: it has to be.
        train: Training images in it, for the estimate of cost; a named set knows its own.
        test: Test images in it.
        classes: Classes in it.
    """

    kind: Literal["data", "weights"]
    about: str = ""
    default: str | None = None
    train: int = 0
    test: int = 0
    classes: int = 0


@dataclass(frozen=True)
class Rule:
    """Options for the cells of a grid whose coordinates are among these; an axis that is not named may be anywhere."""

    when: Mapping[str, tuple[Any, ...]]
    options: Options

    def fits(self, at: Mapping[str, Any]) -> bool:
        """Whether it is about the cell at these coordinates."""
        return all(axis in at and at[axis] in levels for axis, levels in self.when.items())


@dataclass(frozen=True)
class Settings:
    """One scale: how to turn the coordinates of a cell into a run.

    What a cell's run takes is put together in this order, what comes later winning: ``options``; for each axis of the
    grid its level in ``levels``; the ``exceptions`` that fit; for each axis in ``knobs`` the level itself.

    Args:
        name: Its name.
        about: What is run, in words.
        seeds: Of the runs.
        options: What all runs have in common.
        levels: By axis and level, options; ``"*"`` is any level, and a level that is missing is not run at this scale.
            ``label`` is how the level is shown, ``backbone`` one of ``backbones``.
        exceptions: For combinations of levels.
        knobs: By axis, the option that its levels are values of; with a dot, an entry of an option.
        single: Axes of which only the first level is run, standing for them all.
        places: What the values of ``data`` and ``weights`` stand for.
        backbones: Runs that come first, by name: their options.
        evaluation: Options of ``autolora evaluate``, for attacks that ``fit`` does not run itself.
    """

    name: str
    about: str
    seeds: tuple[int, ...]
    options: Options = field(default_factory=dict)
    levels: Mapping[str, Mapping[Any, Options]] = field(default_factory=dict)
    exceptions: tuple[Rule, ...] = ()
    knobs: Mapping[str, str] = field(default_factory=dict)
    single: tuple[str, ...] = ()
    places: Mapping[str, Place] = field(default_factory=dict)
    backbones: Mapping[str, Options] = field(default_factory=dict)
    evaluation: Options = field(default_factory=dict)

    def level(self, axis: str, level: Any) -> Options | None:
        """Return what a level means, or None if it is not run at this scale."""
        if axis not in self.levels:
            return {} if axis in self.knobs else None
        known = self.levels[axis]
        return known.get(level, known.get("*"))

    def label(self, axis: str, level: Any) -> str:
        """Return how a level is shown."""
        return str((self.level(axis, level) or {}).get("label", level))


def merged(options: Options, more: Options) -> dict[str, Any]:
    """Return options changed by others; of a mapping, as ``method_options`` is, entry by entry."""
    result = dict(options)
    for name, value in more.items():
        both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = {**result[name], **value} if both else value
    return result
