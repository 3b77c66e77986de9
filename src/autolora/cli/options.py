"""Command-line options from the fields of :class:`RunConfig`, so that command line, YAML and Python never differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from itertools import islice
from shlex import quote
from typing import Any, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # type: ignore[attr-defined]

from autolora.experiments.config import RunConfig, config_from
from autolora.experiments.result import CONFIG

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
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with options; the command line wins")


def to_config(options: Namespace) -> RunConfig:
    """Return the run configuration of parsed options.

    Raises:
        InputError: If it cannot work.
    """
    return config_from({item.name: options[item.name] for item in fields(RunConfig)})


def resume_hint(command: str, options: Namespace) -> str:
    """Say how to go on after an interruption."""
    folder = to_config(options).folder
    if not (folder / CONFIG).is_file():
        return " before anything was written"
    started = (folder / "checkpoints").exists()
    when = "after the last finished epoch" if started else "before the first epoch was finished"
    return f" {when}; continue with: autolora {command} --config {quote(str(folder / CONFIG))} --resume"


def config_first(argv: list[str]) -> list[str]:
    """Move ``--config FILE`` behind the command, so that options on the command line win wherever they stand."""
    files: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--config" and (file := list(islice(words, 1))):
            files += [word, *file]
        elif word.startswith("--config="):
            files.append(word)
        else:
            rest.append(word)
    return rest[:1] + files + rest[1:]


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
