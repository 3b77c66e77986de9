"""Command-line options from the fields of :class:`RunConfig`, so that command line, YAML and Python never differ."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from autolora.experiments.config import RunConfig, config_from

SHOWN_FIRST = ("model", "weights", "method", "eps", "norm", "epochs", "batch_size", "image_size", "out", "seed")


def config_parser(
    formatter: Any, *, description: str, epilog: str, defaults: Mapping[str, Any] | None = None
) -> ArgumentParser:
    """Make a parser with an option for every field of the run configuration.

    Args:
        formatter: Help formatter.
        description: What the command does.
        epilog: Worked examples.
        defaults: Defaults of this command where they differ from the configuration's.
    """
    parser = ArgumentParser(description=description, epilog=epilog, exit_on_error=False, formatter_class=formatter)
    hints = get_type_hints(RunConfig)
    for item in sorted(fields(RunConfig), key=_order):
        default = (defaults or {}).get(item.name, item.default)
        _add(parser, item, hints[item.name], default)
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder after its last epoch")
    add_common(parser)
    return parser


def add_common(parser: ArgumentParser) -> None:
    """Add what every command has."""
    parser.add_argument("--quiet", action="store_true", help="no progress and no messages, only errors")
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with options; the command line goes first")


def to_config(options: Namespace) -> RunConfig:
    """Return the run configuration of parsed options.

    Raises:
        InputError: If it cannot work.
    """
    return config_from({item.name: options[item.name] for item in fields(RunConfig)})


def config_first(argv: list[str]) -> list[str]:
    """Move ``--config FILE`` in front, so that options on the command line go before the file's wherever they stand."""
    moved: list[str] = []
    rest = list(argv)
    for index, word in enumerate(argv[1:], start=1):
        if word == "--config" and index + 1 < len(argv):
            moved = argv[index : index + 2]
            rest = argv[:index] + argv[index + 2 :]
        elif word.startswith("--config="):
            moved, rest = [word], argv[:index] + argv[index + 1 :]
    return rest[:1] + moved + rest[1:]


def one_line(message: str, argv: list[str]) -> str:
    """Turn a parser's message into one line that ends in what to do."""
    command = next((word for word in argv if not word.startswith("-")), "")
    text = " ".join(message.split())
    known = [item.name for item in fields(RunConfig)] + ["resume", "quiet", "config"]
    unknown = re.search(r"unrecognized arguments: --([\w-]+)|does not accept option '([\w.-]+)'", text)
    if unknown:
        given = (unknown[1] or unknown[2]).replace("-", "_")
        close = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
        if unknown[1]:
            text = f"option --{unknown[1]} is unknown" + (f"; did you mean --{close[0].replace('_', '-')}?" if close else "")
        else:
            text = f"config key {unknown[2]!r} is unknown" + (f"; did you mean {close[0]!r}?" if close else "")
    text = text.replace("the following arguments are required: ", "missing: ").replace(f"{command}.", "")
    return f"{text} (see autolora {command} --help)"


def _order(item: Field[Any]) -> tuple[bool, int]:
    shown = item.name in SHOWN_FIRST
    return (item.name != "data", SHOWN_FIRST.index(item.name) if shown else len(SHOWN_FIRST))


def _add(parser: ArgumentParser, item: Field[Any], kind: Any, default: Any) -> None:
    text = item.metadata["help"]
    if default is MISSING:
        parser.add_argument(item.name, metavar=item.name.upper(), help=text)
    elif kind is bool:
        parser.add_argument(_flag(item.name), action="store_true", help=text)
    else:
        parser.add_argument(_flag(item.name), type=kind, default=default, help=text)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
