"""The command ``autolora``: one subcommand per file, errors in one line, exit codes that scripts can rely on."""

from __future__ import annotations

import logging
import math
import os
import sys
from argparse import Action, _SubParsersAction
from collections.abc import Sequence
from contextlib import suppress
from errno import EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOTDIR
from signal import SIG_IGN, SIGTERM, signal
from textwrap import fill
from threading import current_thread, main_thread
from time import monotonic
from types import FrameType
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from autolora.cli import (
    compare,
    doctor,
    evaluate,
    export,
    fit,
    listings,
    params,
    plan,
    pretrain,
    quickstart,
    report,
    serve,
    suite,
)
from autolora.cli.messages import Option, check_flags, described, one_line
from autolora.cli.options import WITH_PRESETS, config_first
from autolora.errors import InputError, RunError

GROUPS: dict[str, tuple[Any, ...]] = {  # by what one wants; the help shows them so
    "start": (quickstart,),
    "train": (plan, fit, pretrain),
    "judge": (evaluate, compare, doctor),
    "show": (report, serve),
    "ship": (export,),
    "research": (suite, params),
    "what there is": listings.COMMANDS,
}
COMMANDS: dict[str, Any] = {module.NAME: module for group in GROUPS.values() for module in group}
OK, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
IMPOSSIBLE = (ENAMETOOLONG, ELOOP, EINVAL, ENOTDIR, EISDIR)  # what the system says of names that cannot be
LONGEST_NAME = 200
REPEATED = 5.0  # seconds after a SIGTERM in which another is the same request: launchers ask twice
WIDTH = 80  # columns of the list of commands

EPILOG = """examples:
  autolora quickstart                      see it work, offline, in minutes
  autolora fit photos/                     yours, into runs/photos-autolora
  autolora evaluate runs/photos-autolora   how robust it is, by AutoAttack
  autolora report runs/photos-autolora     all about it, as one page
  autolora serve runs/photos-autolora      attack images yourself
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 a mistake in the command, 130 or 143 interrupted."""
    if current_thread() is main_thread():
        signal(SIGTERM, _Termination())
    try:
        code = run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt as end:  # before the command began
        code = _fail(ended_by(end), "interrupted before anything was written")
    if code == TERMINATED:
        signal(SIGTERM, SIG_IGN)  # a second one may come when the process is all but gone
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Run the command line; return the exit code."""
    options = _parse(argv)
    if isinstance(options, int):
        return options
    command = COMMANDS[options.command]
    _configure_logging(quiet=options[options.command].get("quiet", False))
    try:
        code = command.execute(options[options.command])
    except InputError as error:
        return _fail(USAGE, error)
    except KeyboardInterrupt as end:
        with suppress(Exception):  # options that cannot work; or torch, whose import has been broken off
            return _fail(ended_by(end), f"interrupted{command.resume_hint(options[options.command])}")
        return _fail(ended_by(end), "interrupted")
    except BrokenPipeError:
        return FAILED
    except OSError as error:
        return _fail(USAGE if error.errno in IMPOSSIBLE else FAILED, _of_system(error))
    except Exception as error:
        return _fail(FAILED, _unexpected(error))
    return OK if code is None else code  # the doctor's says whether something was found


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


class _Termination:
    """Lets SIGTERM, by which machines ask processes to end, leave things as tidy as Ctrl-C does; once is enough.

    One that comes much later counts again: Python drops what is raised in a destructor, and so may have the first.
    """

    def __init__(self) -> None:
        self._heard = -math.inf

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if monotonic() - self._heard > REPEATED:
            self._heard = monotonic()
            raise Terminated


def ended_by(end: KeyboardInterrupt) -> int:
    """Return the exit code of a command that Ctrl-C or SIGTERM has ended."""
    return TERMINATED if isinstance(end, Terminated) else INTERRUPTED


def _parser() -> ArgumentParser:
    set_parsing_settings(add_print_completion_argument=True)
    parser = ArgumentParser(
        prog="autolora",
        description="Turn a pre-trained vision backbone into an adversarially robust classifier for your own images.",
        epilog=EPILOG,
        exit_on_error=False,
        formatter_class=_formatter(),
        version=_version(),
        allow_abbrev=False,  # of the commands too: a part of a name can become another option's with the next version
    )
    about = "autolora COMMAND --help shows the options and worked examples of each"
    commands = parser.add_subcommands(True, "command", title="commands", description=about, metavar="COMMAND")
    for name, module in COMMANDS.items():
        commands.add_subcommand(name, module.parser(_formatter()), help=module.HELP)
    return parser


def _options() -> dict[str, dict[str, Option]]:
    """Options by command and name."""
    named = {name: described(module.parser(_formatter())) for name, module in COMMANDS.items()}
    return {name: options | ({"preset": Option()} if name in WITH_PRESETS else {}) for name, options in named.items()}


def _parse(argv: list[str]) -> Namespace | int:
    """Return the options, or the exit code if there is nothing more to do."""
    if not argv:
        argv = ["--help"]
    try:
        options = _parser().parse_args(config_first(argv))
        check_flags(options[options.command], described(COMMANDS[options.command].parser(_formatter())))
        return options
    except SystemExit as done:  # --help, --version and --print_config
        return int(done.code or 0)
    except InputError as error:
        return _refuse(error)
    except Exception as error:  # jsonargparse raises argparse's, YAML's and its own
        return _refuse(one_line(str(error), argv, _options()))


def _formatter() -> Any:
    from jsonargparse import DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter):
        """Keep the line breaks of the worked examples, and show the commands in groups."""

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            if not text.startswith("examples:"):
                return super()._fill_text(text, width, indent)
            return "".join(indent + line for line in text.splitlines(keepends=True))

        def _format_action(self, action: Action) -> str:
            return _in_groups() if isinstance(action, _SubParsersAction) else super()._format_action(action)

    return Formatter


def _in_groups() -> str:
    """Return the commands under what one wants of them."""
    indent = " " * (6 + max(map(len, COMMANDS)))
    return "".join(
        f"\n  {title}\n" + "".join(_wrapped(module.NAME, module.HELP, indent) for module in group)
        for title, group in GROUPS.items()
    )


def _wrapped(name: str, text: str, indent: str) -> str:
    return fill(text, WIDTH, initial_indent=f"    {name}".ljust(len(indent)), subsequent_indent=indent) + "\n"


def _version() -> str:
    from importlib.metadata import version

    return version("autolora")


def _configure_logging(*, quiet: bool) -> None:
    """Show the package's messages on stderr, above any progress bar; other libraries only when something is wrong."""
    from tqdm import tqdm

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.write(self.format(record), file=sys.stderr)

    logging.basicConfig(level=logging.ERROR, format="%(message)s", handlers=[Handler()], force=True)
    logging.getLogger("autolora").setLevel(logging.WARNING if quiet else logging.INFO)
    if quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # of weights that are fetched; on a terminal, it draws them
    for noisy in ("huggingface_hub", "timm", "httpx"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def _unexpected(error: Exception) -> str:
    if logging.getLogger("autolora").isEnabledFor(logging.DEBUG):
        raise error
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, RunError) else f"{type(error).__name__}: {text}"


def _of_system(error: OSError) -> str:
    """Say what the system refused, and for which file."""
    if logging.getLogger("autolora").isEnabledFor(logging.DEBUG):
        raise error
    where = f"{str(error.filename)[:LONGEST_NAME]}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}"


def _refuse(message: object) -> int:
    """Refuse a command line; of several processes that were launched with it, the first says why."""
    return _fail(USAGE, message) if os.environ.get("RANK", "0") == "0" else USAGE


def _fail(code: int, message: object) -> int:
    line = " ".join(str(message).split())  # names of files and classes can hold anything, commands to terminals too
    print(f"autolora: {''.join(c if c.isprintable() else repr(c)[1:-1] for c in line)}", file=sys.stderr)
    return code
