"""From a suite and a scale to the runs that it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from autolora.errors import InputError
from autolora.experiments.config import suggestion
from autolora.experiments.suites.definitions import Coordinates, Level, Suite
from autolora.experiments.suites.identity import identity
from autolora.experiments.suites.protocols import Protocol
from autolora.experiments.suites.settings import Options, Settings, merged

SCALES = ("small", "paper")
NOT_OPTIONS = ("label", "backbone")  # of a level, beside options
# options that a run resolves where they are left open
FOUND_OUT = ("image_size", "upsample_to", "upsampling", "batch_size", "epochs")
BACKBONE_SEED = 0  # one backbone for all seeds, as in the papers


@dataclass(frozen=True)
class Job:
    """A run that a suite needs.

    Args:
        options: Of ``autolora fit``, without ``out``; ``data`` and ``weights`` may name places.
        backbone: The run that it starts from, if there is one.
        selects_on_test: Whether its validation images are the test images.
        title: What it is called.
    """

    options: Options
    backbone: Job | None = None
    selects_on_test: bool = False
    title: str = ""

    @cached_property
    def name(self) -> str:
        """Return the name of the run folder: readable in front, and at its end the hash that makes it the run it is."""
        return f"{self.title}-{identity(self._decisive)}"

    @property
    def seed(self) -> int:
        """Return the seed."""
        return int(self.options["seed"])

    @property
    def _decisive(self) -> dict[str, Any]:
        """Return the options, with what stands for files that lie elsewhere on each machine."""
        decisive = dict(self.options)
        if self.backbone is not None:
            decisive["model"] = self.backbone.name
        if self.selects_on_test:
            decisive["data"] = f"{decisive['data']}, validated on test"
        return decisive

    def is_run_of(self, config: Mapping[str, Any]) -> bool:
        """Whether a finished run's configuration is this one; where its files lay does not matter."""
        files = {name: self.options[name] for name in ("data", "weights") if name in self.options}
        if self.backbone is not None:
            files["model"] = "a run"
        known = {name: value for name, value in config.items() if name in self.options or name not in FOUND_OUT}
        return identity({**known, **files}) == identity({**self.options, **files})


@dataclass(frozen=True)
class Cell:
    """One place in a grid, and its runs.

    Args:
        at: Its level on every axis, in the paper's words.
        labels: How each level is shown.
        jobs: A run for every seed.
    """

    at: Coordinates
    labels: Mapping[str, str]
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Plan:
    """A suite at one scale, under one protocol.

    Args:
        suite: Which.
        settings: Of the scale.
        protocol: How runs are selected.
        cells: The grid.
        left_out: Levels that are not run at this scale, by axis.
    """

    suite: Suite
    settings: Settings
    protocol: Protocol
    cells: tuple[Cell, ...]
    left_out: Mapping[str, tuple[Level, ...]]

    @property
    def jobs(self) -> list[Job]:
        """Return the runs of the grid, each once, without what they start from; none if nothing is trained."""
        return list(_distinct(job for cell in self.cells for job in cell.jobs)) if self.suite.trains else []

    @property
    def backbones(self) -> list[Job]:
        """Return the runs that those of the grid start from, each once."""
        return list(_distinct(job.backbone for job in self.jobs if job.backbone is not None))


def plan(suite: Suite, scale: str, protocol: Protocol | None = None, seeds: Sequence[int] | None = None) -> Plan:
    """Lay out a suite.

    Args:
        suite: Which.
        scale: One of its settings, such as ``"small"``.
        protocol: The sound one by default.
        seeds: Those of the settings by default.

    Raises:
        InputError: If there is no such scale, or the settings do not say what an axis means.
    """
    if scale not in suite.settings:
        raise InputError(f"{suite.id} has no scale {scale!r}{suggestion(scale, suite.settings)}")
    settings, protocol = suite.settings[scale], protocol or Protocol()
    for axis in suite.grid:
        if axis not in settings.levels and axis not in settings.knobs:
            raise InputError(f"{suite.id}: its settings do not say what {axis!r} means; add it to levels or knobs")
    kept, left_out = _levels(suite, settings)
    chosen = tuple(settings.seeds if seeds is None else seeds)
    chosen = chosen if suite.trains else chosen[:1]
    cells = tuple(
        _cell(dict(zip(kept, levels, strict=True)), settings, protocol, chosen) for levels in product(*kept.values())
    )
    return Plan(suite, settings, protocol, cells, left_out)


def _levels(suite: Suite, settings: Settings) -> tuple[dict[str, list[Level]], dict[str, tuple[Level, ...]]]:
    """Return the levels to run by axis, and those that are not."""
    kept: dict[str, list[Level]] = {}
    for axis, levels in suite.grid.items():
        known = [level for level in levels if settings.level(axis, level) is not None]
        kept[axis] = known[:1] if axis in settings.single else known
        if not known:
            raise InputError(f"{suite.id} cannot be run at the scale {settings.name}: no {axis} of it can")
    left_out = {
        axis: tuple(level for level in levels if level not in kept[axis]) for axis, levels in suite.grid.items()
    }
    return kept, {axis: levels for axis, levels in left_out.items() if levels}


def _cell(at: dict[str, Level], settings: Settings, protocol: Protocol, seeds: Sequence[int]) -> Cell:
    labels = {axis: settings.label(axis, level) for axis, level in at.items()}
    options, backbone = _options(at, settings)
    changed = protocol.apply(options)
    data = Path(str(changed.get("data", "data"))).name.split(".")[0]
    title = f"{changed.get('method', 'autolora')}-{data}"
    jobs = tuple(
        Job({**changed, "seed": seed}, backbone, protocol.selects_on_test, f"{title}-seed{seed}") for seed in seeds
    )
    return Cell(at, labels, jobs)


def _options(at: Coordinates, settings: Settings) -> tuple[dict[str, Any], Job | None]:
    """Put the options of a cell together, and find the run that it starts from."""
    options = dict(settings.options)
    for axis, level in at.items():
        options = merged(options, settings.level(axis, level) or {})
    for rule in settings.exceptions:
        if rule.fits(at):
            options = merged(options, rule.options)
    for axis, level in at.items():
        if axis in settings.knobs and axis not in settings.levels:
            options = merged(options, _knob(settings.knobs[axis], level))
    backbone = None if "backbone" not in options else _backbone(options["backbone"], settings)
    return {name: value for name, value in options.items() if name not in NOT_OPTIONS}, backbone


def _knob(option: str, level: Level) -> dict[str, Any]:
    """Return an option, or an entry of one, as options."""
    name, _, entry = option.partition(".")
    return {name: {entry: level} if entry else level}


def _backbone(name: str, settings: Settings) -> Job:
    if name not in settings.backbones:
        raise InputError(
            f"settings {settings.name}: backbone {name!r} is unknown{suggestion(name, settings.backbones)}"
        )
    options = {"seed": BACKBONE_SEED, **settings.backbones[name]}
    return Job(options, title=f"backbone-{name}")


def _distinct(jobs: Iterable[Job]) -> Iterable[Job]:
    return {job.name: job for job in jobs}.values()
