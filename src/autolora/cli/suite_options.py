"""The options of ``autolora suite``, and which of them belong to which action."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

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


def suite_parser(formatter: Any) -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(
        description="Run the papers' tables and figures by name. A run is known by what its configuration decides, so "
        "suites share it; what is finished is never run again, and what is not is never read.",
        epilog=EPILOG,
        exit_on_error=False,
        formatter_class=formatter,
    )
    parser.add_argument("action", nargs="?", type=str, default=None, metavar="ACTION", help="list, show, run or table")
    parser.add_argument("ids", nargs="*", type=str, default=[], metavar="ID", help="suites, or YAML files of your own")
    add = parser.add_argument
    add("--scale", type=str, default="small", metavar="small|paper", help="small: minutes a run on two cores")
    add("--protocol", type=str, default="sound", metavar="sound|released", help="released: all habits of the release")
    habit_help = "one habit of the release, such as select-on-test (`show` says what each is); repeats"
    add("--habit", action="append", default=[], metavar="NAME", help=habit_help)
    add("--seeds", type=str | None, default=None, metavar="N,N", help="seeds (default: those of the scale)")
    add("--runs", type=str, default=RUNS, metavar="DIR", help="folder that all suites share")
    add("--data", action="append", default=[], metavar="[NAME=]PATH", help="run: where data lie; repeats")
    add("--weights", action="append", default=[], metavar="[NAME=]PATH", help="run: where weights lie; repeats")
    add("--jobs", type=str, default="1", metavar="N", help="run: how many runs at once")
    add("--executor", type=str, default="local", metavar="local|ray", help="run: on this machine, or on a Ray cluster")
    compile_help = "run: `fit`'s option, for runs that begin; it changes rounding, and not which run it is"
    add("--compile", type=str | None, default=None, metavar="auto|off|attack|on", help=compile_help)
    add("--dry-run", action="store_true", help="run: print the commands")
    add("--retry-failed", action="store_true", help="run: continue what has failed as well")
    add("--skip-evaluation", action="store_true", help="run: leave out what `fit` does not measure, such as AutoAttack")
    add("--all", action="store_true", help="table: every finished run below --runs, sorted")
    sort_help = "table --all: data, method, sa, pgd-10, aa, time or parameters (default: data)"
    add("--sort", type=str, default="data", metavar="COLUMN", help=sort_help)
    beside_help = "table: what released, sound, or habits with + between them change, tested"
    add("--beside", type=str | None, default=None, metavar="PROTOCOL", help=beside_help)
    out_help = "table: file to write as well: .md, .tex, .csv, .json, .txt, .svg (a figure); with --all .html too"
    add("--out", type=str | None, default=None, metavar="FILE", help=out_help)
    format_help = "table: what is printed (default: text)"
    add("--format", type=str, default="text", metavar="text|markdown|latex|csv|json", help=format_help)
    add("--json", action="store_true", help="for machines: list as JSON, table as with --format json")
    add("--quiet", action="store_true", help="no progress and no messages, only errors")
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
        InputError: If its suffix stands for nothing, or it is a folder.
    """
    if options.out is None:
        return None
    out = Path(options.out)
    if out.suffix not in suffixes:
        given = repr(out.suffix) if out.suffix else "no suffix"
        raise InputError(f"--out {out} has {given}; it is written as {', '.join(sorted(suffixes))}")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file")
    return out


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
