"""Kinds of values that options take: which value is of which kind, and how a kind is called. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from autolora.errors import InputError

WORDS = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}


def called(hint: Any, option: str) -> str:
    """Return what a value of a kind is, for a sentence such as ``'x' is not an integer``.

    Args:
        hint: Type hint: a plain type, a ``Literal``, a dict or tuple of them, or a union of such.
        option: Name of the option on the command line, without dashes in front.
    """
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is dict:
        return f"a list of options; give them one by one, as in --{option}.NAME VALUE"
    if get_origin(hint) in (tuple, Sequence):
        return f"a list, each {called(get_args(hint)[0], option)}"
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    return " or ".join(WORDS[kind] if kind in WORDS else called(kind, option) for kind in kinds)


def fits(value: Any, hint: Any) -> bool:
    """Say whether a value is of a kind. An integer is a number too, a truth value is neither, and NaN is nothing."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is dict:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(fits(item, arguments[0]) for item in value)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(item, arguments[0]) for item in value)
    if arguments:
        return any(fits(value, kind) for kind in arguments)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def is_plain(hint: Any) -> bool:
    """Say whether a hint is of numbers, texts and truth values, lists of them, or a union of such."""
    if get_origin(hint) in (Sequence, Union, UnionType):
        return all(is_plain(kind) for kind in get_args(hint))
    return hint in WORDS or hint is NoneType


def check_kinds(config: Any) -> None:
    """Check every field of a dataclass against its type hint: files and Python callers can put anything there.

    Raises:
        InputError: If a value is of another kind, or a text holds a zero byte; the message names the option.
    """
    hints = get_type_hints(type(config))
    for item in fields(config):
        value, name = getattr(config, item.name), item.name.replace("_", "-")
        if isinstance(value, str) and "\0" in value:
            raise InputError(f"{name}={shown(value)} holds a zero byte, which no name has")
        if not fits(value, hints[item.name]):
            raise InputError(f"{name}={shown(value)} is not {called(hints[item.name], name)}")


def shown(value: Any) -> str:
    """Return a value as it is written, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
