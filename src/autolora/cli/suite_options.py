"""The options of ``autolora suite``, and which of them belong to which action."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from autolora.cli.out_files import checked_out
from autolora.errors import InputError
from autolora.experiments.config import suggestion

EPILOG = """examples:
  autolora suite list
  autolora suite show autolora.T1                               its runs, what is claimed of them, doubts, cost
  autolora suite run autolora.T1 --data cifar10.zip --dry-run   the commands, without running them
  autolora suite run autolora.T1 --data cifar10.zip --jobs 2    what is missing, two runs at once; again to resume
  autolora suite run autolora.T1 --scale paper --data cifar10=cifar10.zip --seeds 0
  autolora suite table autolora.T1 --out table.md               ours beside theirs; .tex, .csv, .json, .svg
  autolora suite table autolora.T1 --beside select-on-test      what selecting on test images adds
  autolora suite table --all --sort pgd-10 --out runs.html      every finished run
"""
ACTIONS = ("list", "show", "run", "table")
RUNS = "runs/suites"
RUN_ONLY = ("data", "weights", "jobs", "executor", "compile", "dry_run", "retry_failed", "skip_evaluation")
BELONGS = {  # options that only some actions have
    "scale": ("show", "run", "table"),
    "protocol": ("show", "run", "table"),
    "habit": ("show", "run", "table"),
    "seeds": ("show", "run", "table"),
    "runs": ("show", "run", "table"),
    **dict.fromkeys(RUN_ONLY, ("run",)),
    **dict.fromkeys(("all", "sort", "beside", "out", "format"), ("table",)),
    "json": ("list", "table"),
}


def _text(default: str | None, shown: str, says: str) -> dict[str, Any]:
    """Return the keywords of an option that takes a text."""
    return {"type": str if default is not None else str | None, "default": default, "metavar": shown, "help": says}


def _texts(shown: str, says: str) -> dict[str, Any]:
    """Return the keywords of an option that takes a text and may be given several times."""
    return {"action": "append", "default": [], "metavar": shown, "help": f"{says}; repeats"}


def _flag(says: str) -> dict[str, Any]:
    """Return the keywords of an option that takes nothing."""
    return {"action": "store_true", "help": says}


ARGUMENTS: dict[str, dict[str, Any]] = {
    "action": {"nargs": "?", "type": str, "metavar": "ACTION", "help": "list, show, run or table"},
    "ids": {"nargs": "*", "type": str, "default": [], "metavar": "ID", "help": "suites, or YAML files of your own"},
    "--scale": _text("small", "small|paper", "small: minutes a run on two cores"),
    "--protocol": _text("sound", "sound|released", "released: all habits of the release"),
    "--habit": _texts("NAME", "one habit of the release, such as select-on-test (`show` says what each is)"),
    "--seeds": _text(None, "N,N", "seeds (default: those of the scale)"),
    "--runs": _text(RUNS, "DIR", "folder that all suites share"),
    "--data": _texts("[NAME=]PATH", "run: where data lie"),
    "--weights": _texts("[NAME=]PATH", "run: where weights lie"),
    "--jobs": _text("1", "N", "run: how many runs at once"),
    "--executor": _text("local", "local|ray", "run: on this machine, or on a Ray cluster"),
    "--compile": _text(
        None,
        "auto|off|attack|on",
        "run: `fit`'s option, for runs that begin; it changes rounding, and not which run it is",
    ),
    "--dry-run": _flag("run: print the commands"),
    "--retry-failed": _flag("run: continue what has failed as well"),
    "--skip-evaluation": _flag("run: leave out what `fit` does not measure, such as AutoAttack"),
    "--all": _flag("table: every finished run below --runs, sorted"),
    "--sort": _text("data", "COLUMN", "table --all: data, method, sa, pgd-10, aa, time or parameters (default: data)"),
    "--beside": _text(None, "PROTOCOL", "table: what released, sound, or habits with + between them change, tested"),
    "--out": _text(
        None,
        "FILE",
        "table: file to write as well: .md, .tex, .csv, .json, .txt, .svg (a figure); with --all .html too",
    ),
    "--format": _text("text", "text|markdown|latex|csv|json", "table: what is printed (default: text)"),
    "--json": _flag("for machines: list as JSON, table as with --format json"),
    "--quiet": _flag("no progress and no messages, only warnings and errors"),
}


def suite_parser(formatter: Any) -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(
        description="Run the papers' tables and figures by name. A run is known by what its configuration decides, so "
        "suites share it; what is finished is never run again, and what is not is never read.",
        epilog=EPILOG,
        exit_on_error=False,
        formatter_class=formatter,
    )
    for name, keywords in ARGUMENTS.items():
        parser.add_argument(name, **keywords)
    return parser


def check_options(options: Namespace) -> None:
    """Refuse what belongs together and is not there, and what does not belong together.

    Raises:
        InputError: If the action is unknown, an option belongs to another one, or an ID is missing.
    """
    if options.action is None:
        raise InputError(f"no ACTION given: {', '.join(ACTIONS)}")
    if options.action not in ACTIONS:
        raise InputError(f"action {options.action!r} is unknown{suggestion(options.action, ACTIONS)}")
    defaults = suite_parser(DefaultHelpFormatter).get_defaults()
    for name, actions in BELONGS.items():
        if options[name] != defaults[name] and options.action not in actions:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} belongs to `autolora suite {' | '.join(actions)}`, not to {options.action}")
    if options.action == "list" and options.ids:
        raise InputError(f"`autolora suite list` takes no {options.ids[0]!r}; `autolora suite show` describes one")
    if options.action in ("show", "run") and not options.ids:
        raise InputError(
            f"no ID given; `autolora suite list` lists them, as in: autolora suite {options.action} loft.T1"
        )
    if options.action == "table" and options.all == bool(options.ids):
        raise InputError("give the ID of a suite, or --all for every finished run")


def as_typed(options: Namespace) -> str:
    """Return the command that says what these options say."""
    words = ["autolora", "suite", options.action, *options.ids]
    for name, default in suite_parser(DefaultHelpFormatter).get_defaults().items():
        value, flag = options[name], f"--{name.replace('_', '-')}"
        if name not in ("action", "ids") and value != default:
            given = value if isinstance(value, list) else [value]
            words += [word for one in given for word in ((flag,) if one is True else (flag, str(one)))]
    return shlex.join(words)


def out_file(options: Namespace, suffixes: Any) -> Path | None:
    """Return the file to write, or None; refuse one that cannot be, before anything is read.

    Raises:
        InputError: If its suffix stands for nothing, or it is a folder, or a file of a run.
    """
    return None if options.out is None else checked_out(options.out, sorted(suffixes), "it")


def seeds(text: str | None) -> list[int] | None:
    """Read ``--seeds``.

    Raises:
        InputError: If it is no list of whole numbers.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--seeds {text} is no list of whole numbers; write it as 0,6,66")
    return list(dict.fromkeys(map(int, parts)))
