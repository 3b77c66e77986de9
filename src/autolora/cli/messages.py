"""What the parser complains about, in a user's words: what was given, why it cannot be, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from autolora.experiments.config import RunConfig

KINDS = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}


def one_line(message: str, argv: list[str], options: Mapping[str, Collection[str]]) -> str:
    """Turn a parser's message into one line that ends in where to look.

    Args:
        message: What jsonargparse, argparse or YAML said; the wording differs from version to version.
        argv: The command line.
        options: Names of the options by command.
    """
    command = next((word for word in argv if word in options), "")
    text = " ".join(message.split())
    line = _command(text, options) or _unknown(text, options.get(command, ())) or _value(text) or _plain(text, argv)
    return f"{line} (see {' '.join(filter(None, ('autolora', command, '--help')))})"


def _command(text: str, commands: Collection[str]) -> str | None:
    found = re.search(r"invalid choice: '?([^'\s]*)", text)
    return found and f"command {found[1]!r} is unknown{_near(found[1], commands)}"


def _unknown(text: str, names: Collection[str]) -> str | None:
    """Name an option or a key that does not exist."""
    if found := re.search(r"nrecognized arguments: --([\w.-]+)", text):
        return f"option --{found[1]} is unknown{_near(found[1], [_dashes(name) for name in names], '--')}"
    if found := re.search(r"nrecognized arguments: (\S+)", text):
        return f"{found[1]!r} belongs to no option; put quotes around a name that holds spaces"
    if found := re.search(r"does not accept (?:option|nested key) '([\w.-]+)'", text):
        return f"config key {found[1]!r} is unknown{_near(found[1], names)}"
    return None


def _value(text: str) -> str | None:
    """Name a value that is not of its option's kind."""
    found = re.search(r'key "(?:\w+\.)?(\w+)": ', text)
    hints = get_type_hints(RunConfig)
    if not found or found[1] not in hints:
        return None
    given = re.search(r"(?:Given value|Got value): (.*)$", text)
    value = f"{given[1]!r} is" if given else "the value is"
    return f"option --{_dashes(found[1])}: {value} not {_kind(hints[found[1]], _dashes(found[1]))}"


def _kind(hint: Any, option: str) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    if get_origin(kinds[0]) is dict:
        return f"a list of options; give them one by one, as in --{option}.NAME VALUE"
    return " or ".join(KINDS[kind] for kind in kinds)


def _plain(text: str, argv: list[str]) -> str:
    """Tell everything else in the parser's own words, without its jargon."""
    if re.search(r'arguments are required: \S*data|Key "[\w.]*data" is required', text):
        return "no DATA given: a folder of class folders, an archive of one, or a named set such as digits"
    if "config" in text and (found := re.search(r"does not exist: '?([^']*)", text)):
        return f"option --config: there is no file {found[1]}"
    for jargon in ("Problems parsing config: ", "Unexpected config: "):
        if jargon in text:
            reason = text.split(jargon, 1)[1].replace(' in "<unicode string>"', "")
            return f"option --config: {_config_file(argv)} does not hold options as YAML, KEY: VALUE ({reason})"
    return text.replace("argument --", "option --").replace("Validation failed: ", "")


def _config_file(argv: list[str]) -> str:
    """Return the file after ``--config``, as it was given."""
    words = [part for word in argv for part in word.split("=", 1)]
    return words[words.index("--config") + 1] if "--config" in words[:-1] else "the file"


def _near(given: str, names: Collection[str], dashes: str = "") -> str:
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {dashes}{close[0]}?"
    return f"; there are {', '.join(names)}" if 0 < len(names) <= 8 else ""


def _dashes(name: str) -> str:
    return name.replace("_", "-")
