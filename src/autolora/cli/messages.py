"""What the parser complains about, in a user's words: what was given, why it cannot be, what to do."""

from __future__ import annotations

import difflib
import re
import shlex
from argparse import Action
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser

from autolora.errors import InputError
from autolora.experiments.kinds import called, shown

DATA = "a folder of class folders, an archive of one, or a named set such as digits"


class Option(NamedTuple):
    """What a command takes, as far as a message needs it."""

    kind: Any = None  # type hint; None where the parser takes anything
    positional: bool = False
    help: str = ""
    shown: str = ""  # what the help calls a positional one


def described(parser: ArgumentParser) -> dict[str, Option]:
    """Return the options of a command by name."""
    defaults = parser.get_defaults()
    return {
        action.dest: Option(
            _kind(action), not action.option_strings, action.help or "", str(action.metavar or action.dest.upper())
        )
        for action in parser._actions
        if action.dest in defaults
    }


def _kind(action: Action) -> Any:
    """Return the type hint of an option; the parser keeps none for flags, which its files may give any value."""
    return bool if action.nargs == 0 else getattr(action, "_typehint", None)


def check_flags(values: Mapping[str, Any], known: Mapping[str, Option]) -> None:
    """Refuse a flag that a file gives a value other than true or false, which the parser accepts.

    Raises:
        InputError: If there is one.
    """
    for name, option in known.items():
        if option.kind is bool and not isinstance(values[name], bool):
            raise InputError(f"config key {name!r}: {shown(values[name])} is not {called(bool, name)}")


def one_line(message: str, argv: list[str], options: Mapping[str, Mapping[str, Option]]) -> str:
    """Turn a parser's message into one line that ends in where to look.

    Args:
        message: What jsonargparse, argparse or YAML said; the wording differs from version to version.
        argv: The command line.
        options: Options by command and name.
    """
    command = next((word for word in argv if word in options), "")
    known = options.get(command, {})
    text = " ".join(message.split())
    line = (
        _command(text, options)
        or _dashed(text, argv, command, known)
        or _unknown(text, known)
        or _value(text, known)
        or _missing(text, known)
        or _flag(text)
    )
    return f"{line or _plain(text, argv)} (see {' '.join(filter(None, ('autolora', command, '--help')))})"


def _command(text: str, commands: Collection[str]) -> str | None:
    found = re.search(r"invalid choice: '?([^'\s]*)", text)
    return found and f"command {found[1]!r} is unknown{_near(found[1], commands)}"


def _dashed(text: str, argv: list[str], command: str, known: Mapping[str, Option]) -> str | None:
    """Say how to give what is no option, such as DATA."""
    found = re.search(r"nrecognized arguments: --([\w.-]+)", text)
    close = found and difflib.get_close_matches(found[1], [_dashes(name) for name in known], n=1, cutoff=0.5)
    if not found or not close or not (option := known.get(close[0].replace("-", "_"), Option())).positional:
        return None
    words = [part for word in argv for part in word.split("=", 1)]
    value = next(iter(words[words.index(f"--{found[1]}") + 1 :]), "") if f"--{found[1]}" in words else ""
    given = shlex.quote(value) if value and not value.startswith("-") else option.shown
    first = option == next(one for one in known.values() if one.positional)
    return f"{option.shown} is given without --{found[1]}{f': autolora {command} {given}' * first}"


def _unknown(text: str, names: Collection[str]) -> str | None:
    """Name an option or a key that does not exist."""
    if found := re.search(r"nrecognized arguments: --([\w.-]+)", text):
        return f"option --{found[1]} is unknown{_near(found[1], [_dashes(name) for name in names], '--')}"
    if found := re.search(r"nrecognized arguments: (\S+)", text):
        return f"{found[1]!r} belongs to no option; put quotes around a name that holds spaces"
    if found := re.search(r"does not accept (?:option|nested key) '([^']+)'", text):
        return f"config key {found[1]!r} is unknown{_near(found[1], names)}"
    if found := re.search(r"Key must be a string, got: (.*?)\.?$", text):
        return f"config key {found[1]} is a value, not a name of an option"
    return None


def _value(text: str, known: Mapping[str, Option]) -> str | None:
    """Name a value that is not of its option's kind."""
    found = re.search(r'key "(?:\w+\.)?(\w+)"(?: element \d+)?: (?:Expected|Does not validate)', text)
    if not found or found[1] not in known:
        return None
    given = re.search(r".*(?:Given value|Got value): (.*)$", text)  # the last: it is said of each kind that would do
    value = f"{given[1]!r} is" if given else "the value is"
    name, kind = found[1], known[found[1]].kind
    what = name.upper() if known[name].positional else f"option --{_dashes(name)}"
    return f"{what}: {value} not {called(kind, _dashes(name)) if kind is not None else 'what it takes'}"


def _missing(text: str, known: Mapping[str, Option]) -> str | None:
    """Name what has to be there and is not."""
    found = re.search(r'arguments are required: (?:\w+\.)?(\w+)|Key "(?:\w+\.)?(\w+)" is required', text)
    if not found:
        return None
    name = found[1] or found[2]
    help_text = DATA if name == "data" else known[name].help if name in known else ""
    return f"no {name.upper()} given{': ' if help_text else ''}{help_text}"


def _flag(text: str) -> str | None:
    """Name an option that takes no value and was given one."""
    if found := re.search(r"argument (\S+): ignored explicit argument (.*)$", text):
        return f"option {found[1].rpartition('/')[2]} takes no value, and {found[2]} was given"
    return None


def _plain(text: str, argv: list[str]) -> str:
    """Tell everything else in the parser's own words, without its jargon."""
    if "config" in text and (found := re.search(r"does not exist: '?([^']*)", text)):
        return f"option --config: there is no file {found[1]}"
    for jargon in ("Problems parsing config:", "Unexpected config:"):
        if jargon in text:
            reason = text.split(jargon, 1)[1].strip().replace(' in "<unicode string>"', "")[:200] or "it is empty"
            return f"option --config: {config_file(argv)} does not hold options as YAML, KEY: VALUE ({reason})"
    if "object is not iterable" in text or "object does not support item assignment" in text:
        return f"option --config: {config_file(argv)} gives one value to an option that takes a list"
    return text.replace("argument --", "option --").replace("Validation failed: ", "")


def config_file(argv: list[str]) -> str:
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
