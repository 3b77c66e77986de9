"""``autolora suite``: the papers' tables and figures, run by name and set beside the published numbers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.suite_options import as_typed, check_options, out_file, seeds, suite_parser
from autolora.errors import InputError
from autolora.experiments.config import Compile, suggestion

if TYPE_CHECKING:  # torch is slow to import, and help has no use for it
    from autolora.experiments.suites.definitions import Suite
    from autolora.experiments.suites.grid import Plan
    from autolora.experiments.suites.leaderboard import Entry
    from autolora.experiments.suites.store import Store
    from autolora.experiments.suites.table import Table

logger = logging.getLogger(__name__)

NAME = "suite"
HELP = "the papers' tables and figures: list, show, run, table"


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    return suite_parser(formatter)


def execute(options: Namespace) -> None:
    """Run the command.

    Raises:
        InputError: If an option cannot be, or belongs to another action.
    """
    check_options(options)
    if options.action == "list":
        _list(options)
    elif options.action == "show":
        _show(options)
    elif options.action == "run":
        _run(options)
    elif options.all:
        _leaderboard(options)
    else:
        _table(options)


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption."""
    if options.action != "run":
        return ""
    return f"; what is finished is kept, and what had begun was saved; continue with: {as_typed(options)}"


def _list(options: Namespace) -> None:
    from autolora.experiments.suites.description import listing
    from autolora.experiments.suites.formats import aligned

    rows = listing()
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    table = [(row["id"], str(row["runs"]), str(row["runs_small"]), f"{row['paper']}: {row['title']}") for row in rows]
    print(aligned([("id", "runs", "small", ""), *table]))


def _show(options: Namespace) -> None:
    from autolora.experiments.suites.description import describe

    print("\n".join(describe(item, _store(options)) for item in _plans(options)), end="")


def _run(options: Namespace) -> None:
    from autolora.experiments.suites.commands import as_shell
    from autolora.experiments.suites.execution import told
    from autolora.experiments.suites.places import read_places
    from autolora.experiments.suites.running import EXECUTORS, run_suites, work_left

    if not options.jobs.isdecimal() or int(options.jobs) < 1:
        raise InputError(f"--jobs {options.jobs} is not a whole number of 1 or more")
    if options.executor not in EXECUTORS:
        raise InputError(f"executor {options.executor!r} is unknown{suggestion(options.executor, EXECUTORS)}")
    if options.compile not in (None, *get_args(Compile)):
        raise InputError(f"--compile {options.compile} is unknown{suggestion(options.compile, get_args(Compile))}")
    plans, store = _plans(options), _store(options)
    places = read_places([item.settings for item in plans], options.data, options.weights)
    retry, evaluate = options.retry_failed, not options.skip_evaluation
    work = work_left(plans, store, places, retry=retry, evaluate=evaluate, compile=options.compile)
    if options.dry_run:
        print("\n".join(as_shell(step.command) for task in work.tasks for step in task.steps))
        return
    if not options.quiet:
        print(f"{work.finished} runs are finished, {len(work.tasks)} to do, {options.jobs} at once, in {store.folder}")
        for job, mark in work.failed:
            print(f"left alone: {job.name} {told(mark)} (--retry-failed continues it)")
        for job in work.running:
            print(f"left alone: {job.name} is running")
    run_suites(work, store, places, EXECUTORS[options.executor](int(options.jobs)))


def _table(options: Namespace) -> None:
    from autolora.experiments.suites.figures import as_svg
    from autolora.experiments.suites.formats import FORMATS, SUFFIXES

    kind = "json" if options.json else options.format
    if kind not in FORMATS:
        raise InputError(f"format {kind!r} is unknown{suggestion(kind, FORMATS)}")
    out = out_file(options, {*SUFFIXES, ".svg"})
    plans = _plans(options)
    if out is not None and len(plans) > 1:
        raise InputError(f"--out {out} is one file, and {len(plans)} suites are asked for; give one of them")
    for item in plans:
        table, sheet = _sheet(item, options)
        if out is not None:
            _write(out, as_svg(table) if out.suffix.lower() == ".svg" else FORMATS[SUFFIXES[out.suffix.lower()]](sheet))
        if not options.quiet:
            print(FORMATS[kind](sheet))


def _sheet(item: Plan, options: Namespace) -> tuple[Table, Any]:
    from autolora.experiments.suites.effects import protocol_effects
    from autolora.experiments.suites.notes import notes
    from autolora.experiments.suites.sheet import Sheet
    from autolora.experiments.suites.table import build_table

    store = _store(options)
    table = build_table(item, store)
    effects = []
    if options.beside is not None:
        other = build_table(_plan(item.suite, options, options.beside), store)
        effects = protocol_effects(table, other)
    return table, Sheet(table, notes(table, store), effects)


def _leaderboard(options: Namespace) -> None:
    from autolora.experiments.suites.formats import aligned, piped
    from autolora.experiments.suites.leaderboard import as_csv, as_json, leaderboard, rows
    from autolora.experiments.suites.page import as_html

    formats: dict[str, Callable[[list[Entry]], str]] = {
        ".html": as_html,
        ".json": as_json,
        ".csv": as_csv,
        ".md": lambda entries: piped(rows(entries)) + "\n",
        ".txt": lambda entries: aligned(rows(entries)) + "\n",
    }
    out = out_file(options, formats)
    entries = leaderboard(Path(options.runs), options.sort)
    if out is not None:
        _write(out, formats[out.suffix.lower()](entries))
    if not options.quiet:
        print(as_json(entries) if options.json or options.format == "json" else aligned(rows(entries)))


def _write(out: Path, text: str) -> None:
    from autolora.experiments.result import write_atomically

    write_atomically(out, text)
    logger.info(f"written: {out}")


def _plans(options: Namespace) -> list[Plan]:
    from autolora.experiments.suites.reading import read_suite

    return [_plan(read_suite(name), options) for name in options.ids]


def _plan(suite: Suite, options: Namespace, beside: str | None = None) -> Plan:
    """Lay out a suite under the protocol that was asked for, or under the one beside it."""
    from autolora.experiments.suites.grid import plan
    from autolora.experiments.suites.protocols import HABITS, protocol

    name, habits = options.protocol, options.habit
    if beside is not None:
        single = set(beside.split("+")) <= set(HABITS)
        name, habits = ("sound", beside.split("+")) if single else (beside, [])
    return plan(suite, options.scale, protocol(name, habits, suite.released), seeds(options.seeds))


def _store(options: Namespace) -> Store:
    from autolora.experiments.suites.store import Store

    return Store(Path(options.runs))
