"""What a method has found out so far, as a checkpoint keeps it: the attributes that changed, whatever the method is.

Branches and everything else that trains belong to the model. What is left are loss weights, counters, measured
accuracies: plain values; and for methods that have them tensors, networks of their own, random generators.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from autolora.methods import Method

PLAIN = (bool, int, float, str, type(None))


class Unkept(TypeError):
    """A value that a checkpoint has no form for."""


def method_state(method: Method, at_first: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a method's attributes by name, in the forms that a checkpoint holds; see :func:`unkept`.

    Args:
        method: The method.
        at_first: What this function returned when the method was new. Then only what changed since is returned: the
            rest are its options, which who continues a run gives again.
    """
    state = {}
    for name, value in vars(method).items():
        with suppress(Unkept):
            state[name] = kept(value)
    before = at_first or {}
    return {name: value for name, value in state.items() if name not in before or not _same(value, before[name])}


def load_method_state(method: Method, state: dict[str, Any]) -> None:
    """Give a method that is made alike the attributes it had."""
    for name, value in state.items():
        setattr(method, name, restored(getattr(method, name, None), value))


def unkept(method: Method) -> list[str]:
    """Return the names of the attributes that no checkpoint can hold."""
    return sorted(vars(method).keys() - method_state(method).keys())


def kept(value: Any) -> Any:
    """Return a value in a form that a checkpoint holds.

    Raises:
        Unkept: If there is none.
    """
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, nn.Module):
        return {name: tensor.detach().clone() for name, tensor in value.state_dict().items()}
    if isinstance(value, torch.Generator):
        return value.get_state()
    if is_dataclass(value) and not isinstance(value, type):  # an attack, a threat model
        return {item.name: kept(getattr(value, item.name)) for item in fields(value) if item.init}
    return _plain(value)


def restored(current: Any, stored: Any) -> Any:
    """Return the value that was stored, given one of its kind; networks and generators are changed in place."""
    if isinstance(current, nn.Module):
        current.load_state_dict(stored)
        return current
    if isinstance(current, torch.Generator):
        current.set_state(stored)
        return current
    if isinstance(current, Fraction):
        return Fraction(stored)
    if is_dataclass(current) and not isinstance(current, type):
        return replace(current, **{name: restored(getattr(current, name), value) for name, value in stored.items()})
    if isinstance(current, Tensor) and isinstance(stored, Tensor):
        return stored.to(current.device)
    return stored


def _plain(value: Any) -> Any:
    """Return a plain value, or one that consists of such, with tensors as they are now."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, PLAIN):
        return value
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    if type(value) is dict and all(isinstance(key, PLAIN) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise Unkept(type(value).__name__)


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)
