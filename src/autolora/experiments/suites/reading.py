"""Suites as files: those of the package by their id, and a user's own by its path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import yaml

from autolora.errors import InputError
from autolora.experiments.config import suggestion
from autolora.experiments.suites.definitions import Claim, Design, Kind, Published, Suite
from autolora.experiments.suites.metrics import is_metric
from autolora.experiments.suites.settings import Place, Rule, Settings, merged

FOLDER = Path(str(files("autolora.experiments") / "suite_files"))
SUFFIX = ".yaml"
SUITE_KEYS = (
    *("id", "paper", "title", "source", "kind", "grid", "metrics", "settings", "small", "published", "claims"),
    *("doubts", "curves", "reference", "released"),
)
SETTINGS_KEYS = (
    *("about", "seeds", "options", "levels", "exceptions", "knobs", "single", "places", "backbones", "pretraining"),
    "evaluation",
)
LIKE = "like"  # in a file's own settings: those of the package that they are laid over


def suite_ids() -> list[str]:
    """Return the ids of the package's suites: by paper, tables before figures, in the paper's order."""

    def order(name: str) -> tuple[str, bool, int]:
        paper, _, number = name.partition(".")
        return paper, number.startswith("F"), int(number[1:])

    return sorted((path.stem for path in FOLDER.glob(f"*.*{SUFFIX}")), key=order)


def read_suite(name: str) -> Suite:
    """Return a suite of the package, or the one in a user's file.

    Args:
        name: An id such as ``autolora.T1``, or the path of a YAML file.

    Raises:
        InputError: If there is none, or the file does not describe one.
    """
    if name in suite_ids():
        return _suite(FOLDER / f"{name}{SUFFIX}")
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise InputError(f"suite {name}: there is no such file; name a suite of `autolora suite list`, or a file")
        return _suite(Path(name))
    raise InputError(f"suite {name!r} is unknown{suggestion(name, suite_ids())}")


def read_settings(where: str, content: Mapping[str, Any], scale: str) -> Settings:
    """Make settings of what a file says.

    Raises:
        InputError: If a key is unknown or missing, or of another kind.
    """
    _check_keys(where, content, SETTINGS_KEYS, ("about", "seeds"))
    common = content.get("pretraining") or {}
    return Settings(
        name=scale,
        about=content["about"],
        seeds=tuple(content["seeds"]),
        options=content.get("options") or {},
        levels=content.get("levels") or {},
        exceptions=tuple(_rule(where, item) for item in content.get("exceptions") or ()),
        knobs=content.get("knobs") or {},
        single=tuple(content.get("single") or ()),
        places={name: _place(f"{where}, places.{name}", item) for name, item in (content.get("places") or {}).items()},
        backbones={name: merged(common, item or {}) for name, item in (content.get("backbones") or {}).items()},
        evaluation=content.get("evaluation") or {},
    )


def _suite(path: Path) -> Suite:
    content, where = _mapping(path), f"suite {path.name}"
    _check_keys(where, content, SUITE_KEYS, ("paper", "title", "grid", "metrics"))
    shared: Mapping[str, Any] = _mapping(FOLDER / f"papers{SUFFIX}").get(content["paper"], {})
    kind = content.get("kind", "scores")
    if kind not in get_args(Kind):
        raise InputError(f"{where}: kind={kind!r} is unknown{suggestion(str(kind), get_args(Kind))}")
    settings = content.get("settings") or shared.get("settings")
    if not settings:
        raise InputError(f"{where}: no settings, which say what its grid means to `autolora fit`; add them")
    return Suite(
        id=content.get("id", path.stem),
        paper=shared.get("name", content["paper"]),
        title=content["title"],
        source=content.get("source", ""),
        kind=kind,
        grid={axis: tuple(levels) for axis, levels in content["grid"].items()},
        metrics=tuple(content["metrics"]),
        settings={scale: _settings(where, item, scale) for scale, item in settings.items()},
        small=Design(**content["small"]) if "small" in content else None,
        published=_published(where, content.get("published"), content["grid"]),
        claims=tuple(_claim(where, item) for item in content.get("claims") or ()),
        doubts=tuple(_doubt(where, item) for item in content.get("doubts") or ()),
        curves=tuple(content.get("curves") or ()),
        reference=content.get("reference") or {},
        released=tuple(content.get("released") or shared.get("released") or ()),
    )


def _settings(where: str, given: Any, scale: str) -> Settings:
    """Read settings: those of the package by their name, or a file's own, which may be ``like`` some of the package."""
    where = f"{where}, settings.{scale}"
    if isinstance(given, str):
        return read_settings(f"settings {given}", _packaged_settings(where, given), scale)
    if isinstance(given, Mapping) and LIKE in given:
        own = {name: value for name, value in given.items() if name != LIKE}
        given = _laid_over(_packaged_settings(where, given[LIKE]), own)
    return read_settings(where, given, scale)


def _packaged_settings(where: str, name: Any) -> Mapping[str, Any]:
    known = {path.stem: path for path in (FOLDER / "settings").glob(f"*{SUFFIX}")}
    if name not in known:
        raise InputError(f"{where}: there are no settings {name!r} in the package{suggestion(str(name), known)}")
    return _mapping(known[name])


def _laid_over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with what another says in its place: entry by entry where both hold mappings."""
    result = dict(base)
    for name, value in own.items():
        below = result.get(name)
        entries = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[name] = _laid_over(result[name], value) if entries else value
    return result


def _published(where: str, content: Mapping[str, Any] | None, grid: Mapping[str, Any]) -> tuple[Published, ...]:
    """Read a table: the columns that are axes of the grid hold levels, the others numbers."""
    if not content:
        return ()
    columns = content["columns"]
    for name in columns:
        if name not in grid and not is_metric(name):
            raise InputError(f"{where}: column {name!r} is neither an axis of the grid nor a metric")
    for row in content["rows"]:
        if len(row) != len(columns):
            raise InputError(f"{where}: {row} has {len(row)} cells, and there are {len(columns)} columns")
    found = [dict(zip(columns, row, strict=True)) for row in content["rows"]]
    return tuple(
        Published(
            {name: value for name, value in row.items() if name in grid},
            {name: value for name, value in row.items() if name not in grid},
        )
        for row in found
    )


def _claim(where: str, content: Mapping[str, Any]) -> Claim:
    higher = "higher" in content
    side = "higher" if higher else "lower"
    _check_keys(
        f"{where}, claim", content, ("says", "metrics", "higher", "lower", "than", "range_over"), (side, "than")
    )
    return Claim(
        content["says"], tuple(content["metrics"]), content[side], content["than"], higher, content.get("range_over")
    )


def _doubt(where: str, name: str) -> str:
    known = _mapping(FOLDER / f"doubts{SUFFIX}")
    if " " in name:  # a sentence of a user's own
        return name
    if name not in known:
        raise InputError(f"{where}: doubt {name!r} is unknown{suggestion(name, known)}")
    return str(known[name])


def _rule(where: str, content: Mapping[str, Any]) -> Rule:
    _check_keys(f"{where}, exception", content, ("when", "options"), ("when", "options"))
    listed = {
        axis: tuple(levels) if isinstance(levels, list) else (levels,) for axis, levels in content["when"].items()
    }
    return Rule(listed, content["options"])


def _place(where: str, content: Mapping[str, Any]) -> Place:
    _check_keys(where, content, ("kind", "about", "default", "train", "test", "classes"), ("kind",))
    return Place(**content)


@lru_cache(maxsize=64)
def _load(path: Path, _: int) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as YAML ({' '.join(str(error).split())})") from None


def _mapping(path: Path) -> Mapping[str, Any]:
    content = _load(path, path.stat().st_mtime_ns)
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold KEY: VALUE as YAML; see docs/suites.md for what a suite is")
    return content


def _check_keys(where: str, content: Any, known: Iterable[str], needed: Iterable[str]) -> None:
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: {content!r} is not KEY: VALUE")
    for name in content:
        if name not in tuple(known):
            raise InputError(f"{where}: key {name!r} is unknown{suggestion(str(name), known)}")
    for name in needed:
        if name not in content:
            raise InputError(f"{where}: key {name!r} is missing")
