"""What a suite is: a grid of runs, the numbers that were published of it, and what they are claimed to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from autolora.experiments.suites.settings import Settings

Level = str | int | float  # a value on an axis of a grid, by the paper's name for it
Coordinates = Mapping[str, Level]  # a level for every axis
Kind = Literal["scores", "p-values", "curves", "settings", "counts"]

KINDS: dict[Kind, str] = {
    "scores": "what runs reached",
    "p-values": "tests between the runs of one method and those of each other",
    "curves": "what runs did over their epochs",
    "settings": "what configurations hold; nothing is run",
    "counts": "what is counted in a model; nothing is run",
}


@dataclass(frozen=True)
class Claim:
    """A difference that a paper states: on ``metrics``, the levels ``first`` against the levels ``second``.

    Args:
        says: The claim, in a sentence without its end.
        metrics: On which it is tested, each on its own.
        first: Levels of one side, such as ``{"method": "autolora"}``; on all other axes both sides are the same.
        second: Levels of the other side, on the same axes.
        higher: Whether the first is claimed to be the higher one, or the lower.
        range_over: An axis: what is compared is not a metric but how far it lies apart over this axis, its highest
            less its lowest value.
    """

    says: str
    metrics: tuple[str, ...]
    first: Coordinates
    second: Coordinates
    higher: bool = True
    range_over: str | None = None


@dataclass(frozen=True)
class Published:
    """The numbers of a table: for each row the levels that it is about, and a number by metric (None: not printed)."""

    at: Coordinates
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class Design:
    """What the small scale of a suite can tell, and what it cannot."""

    can: str
    cannot: str


@dataclass(frozen=True)
class Suite:
    """A table or a figure of a paper.

    Args:
        id: Name, such as ``autolora.T1``.
        paper: Whose it is.
        title: What it is about.
        source: Which table or figure.
        kind: What its numbers are; see ``KINDS``.
        grid: The levels of each axis, in the paper's words.
        metrics: Columns of the table, see ``autolora.experiments.suites.metrics``.
        settings: By scale, what levels mean to ``autolora fit``.
        small: What the small scale can tell.
        published: The paper's numbers; empty for a figure.
        claims: What they are claimed to show.
        doubts: Reasons to doubt them, a sentence each.
        curves: For a figure, what is drawn over the epochs, a panel each.
        reference: For p values, the levels that everything else is tested against.
        released: Habits that the paper's released code has, see ``autolora.experiments.suites.protocols``.
    """

    id: str
    paper: str
    title: str
    source: str
    kind: Kind
    grid: Mapping[str, tuple[Level, ...]]
    metrics: tuple[str, ...]
    settings: Mapping[str, Settings]
    small: Design | None = None
    published: tuple[Published, ...] = ()
    claims: tuple[Claim, ...] = ()
    doubts: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    reference: Coordinates = field(default_factory=dict)
    released: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Name, title, and where it is from."""
        source = f"{self.paper}, {self.source}" if self.source else self.paper
        return f"{self.id}: {self.title} ({source})"

    @property
    def trains(self) -> bool:
        """Whether anything has to be run for it."""
        return self.kind not in ("settings", "counts")
