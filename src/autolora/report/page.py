"""The page: what was collected and examined, put into one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from autolora.errors import InputError
from autolora.experiments.planning.words import duration
from autolora.report import commands, headlines
from autolora.report.accuracies import interval_plot
from autolora.report.classes import class_plots, natural_confusion
from autolora.report.collected import CollectedRun
from autolora.report.comparing import conclusion, differing_options, disagreements, facts
from autolora.report.corruptions import corruption_tables
from autolora.report.costs import cost_rows
from autolora.report.drawing import STYLES, style_of
from autolora.report.epochs import epoch_plots
from autolora.report.examination import Examination
from autolora.report.hints import hints
from autolora.report.radii import radius_plots
from autolora.report.scoreboard import everything, scoreboard
from autolora.report.threats import differing_threats
from autolora.report.wording import percent, plain, shortened


def render(runs: Sequence[CollectedRun], examination: Examination, command: str) -> str:
    """Write the page.

    Args:
        runs: What is reported.
        examination: What the models told.
        command: The command that writes this report.

    Returns:
        HTML, in which nothing refers to another file or address.
    """
    return (
        _environment()
        .get_template("report.html")
        .render(
            runs=runs,
            names=[run.name for run in runs],
            one=runs[0] if len(runs) == 1 else None,
            examination=examination,
            command=command,
            styles=STYLES,
            style_of=style_of,
            threats=_threats(runs),
            threat_of=differing_threats(runs),
            findings=[(run, headlines.finding(run)) for run in runs],
            doubts=headlines.doubts(runs),
            unflagged=[run.name for run in runs if run.finished and not headlines.looked_for_flags(run)],
            lines=scoreboard(runs),
            everything=everything(runs),
            majority=[share if isinstance(share := run.data.get("majority"), float | int) else None for run in runs],
            conclusion=conclusion(runs),
            intervals=interval_plot(runs),
            epochs=epoch_plots(runs),
            radii=radius_plots(runs),
            classes=_classes(runs, examination),
            corruptions=corruption_tables(runs),
            disagreements=disagreements(runs),
            pictured=any(len(names) > 1 for names, _ in examination.galleries),
            costs=cost_rows(runs, examination.sizes),
            options=differing_options(runs),
            configurations=[(run.name, _yaml(run)) for run in runs],
            environment=facts(runs, "environment"),
            data=[
                (name, values) for name, values in facts(runs, "data") if name not in ("classes", "notes", "majority")
            ],
            repeats=[commands.repeat(run) for run in runs],
            loads=[commands.load(run) for run in runs if run.finished],
            hints=hints(runs),
        )
    )


def _threats(runs: Sequence[CollectedRun]) -> list[tuple[str, str]]:
    """Return each threat model in a sentence, with the runs that it is of."""
    found: dict[str, list[str]] = {}
    for run in runs:
        try:
            found.setdefault(headlines.threat_sentence(run.threat), []).append(run.name)
        except InputError as error:
            found.setdefault(f"The configuration names no threat model: {error}.", []).append(run.name)
    return [(sentence, "" if len(found) == 1 else ", ".join(names)) for sentence, names in found.items()]


def _classes(runs: Sequence[CollectedRun], examination: Examination) -> list[tuple[str, list[Any], list[Any], str]]:
    """Return for each finished run its plot by class, its confusion matrices, and why one of them is missing."""
    return [
        (
            run.name,
            class_plots(run, place),
            [each for each in (natural_confusion(run), examination.confusions.get(run.name)) if each is not None],
            "" if run.name in examination.confusions else examination.lacks.get(run.name, ""),
        )
        for place, run in enumerate(runs)
        if run.finished
    ]


def _yaml(run: CollectedRun) -> str:
    return yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("autolora.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_written,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "shortened": shortened, "duration": duration, "shade": _shade}
    return environment


def _written(value: Any) -> Any:
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _shade(share: float | None) -> str:
    """Return how strongly a cell of a table is coloured: at most so far that text stays legible on it."""
    return "0" if share is None else f"{0.55 * min(max(share, 0.0), 1.0):.3f}"
