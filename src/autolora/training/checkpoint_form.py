"""The form of a checkpoint, looked at as a whole before any of it is put back.

A checksum says that a file is what was written, not who wrote it: a folder from a stranger can hold anything and a
manifest that agrees with it. What is restored is compared with what this run would write now: the same names, the
same kinds of values, tensors of the same shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autolora.methods import Method
from autolora.training.checkpoint_store import Damaged
from autolora.training.method_state import restored
from autolora.training.random_state import RandomState, rehearse_random_state

LARGEST = 2**53  # of whole numbers: a double holds every one below
ROW = ("epoch", "lr", "val_natural", "val_robust", "seconds")  # in every row of a history
STANDING = {"epoch": 0, "best": 0.0, "seconds": 0.0}  # beside the history
PARTIAL = {"batches": 0, "images": 0, "seconds": 0.0, "waited": 0.0}  # beside sums and generators
COUNTS = ("batches", "in_workers")
Number = int | float | Tensor
KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    type(None): "nothing",
    Number: "a number",
    list | tuple: "a list",
    dict: "values by name",
}
WRONG = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)  # said of odd values


def check_like(found: Any, pattern: Any, name: str) -> None:
    """Compare a value with one of its kind, all the way down.

    Args:
        found: What a checkpoint holds.
        pattern: A value as it should be. A list stands for any number of values like its first, an empty one for
            numbers; a number stands for any finite one.
        name: What to call it.

    Raises:
        Damaged: If it is of another kind, or a part of it is missing or too much.
    """
    if isinstance(pattern, Mapping):
        names(found, pattern, name)
        for key, part in pattern.items():
            check_like(found[key], part, f"{name}.{key}")
    elif isinstance(pattern, list):
        require(isinstance(found, list), name, "a list")
        for number, part in enumerate(found):
            check_like(part, pattern[0] if pattern else 0.0, f"{name}.{number}")
    elif isinstance(pattern, tuple):
        require(isinstance(found, tuple) and len(found) == len(pattern), name, f"{len(pattern)} values")
        for number, (part, like) in enumerate(zip(found, pattern, strict=True)):
            check_like(part, like, f"{name}.{number}")
    elif isinstance(pattern, Tensor):
        _check_tensor(found, pattern, name)
    else:
        _check_plain(found, type(pattern), name)


def names(found: Any, required: Iterable[str], name: str) -> None:
    """Require a dict with exactly these names.

    Raises:
        Damaged: If it is none, or has others.
    """
    required = list(required)
    require(isinstance(found, dict) and found.keys() == set(required), name, f"{', '.join(map(str, required))} by name")


def check_momentum(found: Any, trained: Sequence[Tensor], name: str) -> None:
    """Compare the state of an optimizer with what it trains: by number, buffers of the tensors' shapes, or none yet.

    Raises:
        Damaged: If there is anything else.
    """
    require(isinstance(found, dict) and set(found) <= set(range(len(trained))), name, "buffers by number")
    for number, state in found.items():
        require(isinstance(state, dict) and set(state) <= {"momentum_buffer"}, f"{name}.{number}", "a momentum_buffer")
        for buffer in state.values():
            if buffer is not None:
                _check_tensor(buffer, trained[number], f"{name}.{number}")


def check_standing(found: Any, score: str, name: str) -> None:
    """Look at where a run stands: as many rows as epochs, of numbers, and a best score that is one of theirs.

    Args:
        found: What a checkpoint holds of :class:`~autolora.training.checkpoint.TrainingState`.
        score: Name of the score that the best epoch is chosen by.
        name: What to call it.

    Raises:
        Damaged: If it is not so.
    """
    names(found, (*STANDING, "history"), name)
    check_like({key: found[key] for key in STANDING}, STANDING, name)
    rows = found["history"]
    require(isinstance(rows, list) and len(rows) == found["epoch"], f"{name}.history", f"{found['epoch']} rows")
    for row in rows:
        require(isinstance(row, dict) and set(ROW) <= set(row), f"{name}.history", f"rows with {', '.join(ROW)}")
        require(all(isinstance(key, str) and _is_number(row[key]) for key in row), f"{name}.history", "rows of numbers")
    require(not rows or found["best"] in [row[score] for row in rows], f"{name}.best", f"the {score} of an epoch")


def check_method(found: Any, method: Method, name: str) -> None:
    """Look at what a method has found out: attributes that are data, each of the kind that it has now.

    Raises:
        Damaged: If an attribute is of another kind, or would stand in the place of code.
    """
    require(isinstance(found, dict), name, "values by name")
    for key, value in found.items():
        where = f"{name}.{key}"
        here = isinstance(key, str) and key in vars(method)
        require(here or (isinstance(key, str) and not hasattr(type(method), key)), where, "an attribute of the method")
        current = getattr(method, key) if here else None
        if isinstance(current, nn.Module):
            check_like(value, dict(current.state_dict()), where)
        elif isinstance(current, torch.Generator):
            check_generator(value, where)
        elif current is not None:
            _check_value(value, current, where)


def check_compiled(found: Any, name: str) -> None:
    """Look at what was found to be worth compiling: yes, no or not known yet, by name.

    Raises:
        Damaged: If it is anything else.
    """
    right = isinstance(found, dict) and all(isinstance(choice, bool | None) for choice in found.values())
    require(right, name, "choices by name")


def check_draws(found: Any, pattern: Mapping[str, Any], name: str) -> None:
    """Look at where a pass over the images stands.

    Args:
        found: What a checkpoint holds of it.
        pattern: What would be kept now.
        name: What to call it.

    Raises:
        Damaged: If no pass can stand there.
    """
    names(found, pattern, name)
    check_like({key: found[key] for key in COUNTS}, dict.fromkeys(COUNTS, 0), name)
    require(isinstance(found["ahead"], list) and isinstance(found["workers"], dict), name, "with lists of generators")
    check_like(list(found["workers"]), [0], f"{name}.workers")
    for state in [found["order"], *found["ahead"], *found["workers"].values()]:
        check_generator(state, name)
    if pattern["generator"] is None:
        check_like(found["generator"], None, f"{name}.generator")
    else:
        check_generator(found["generator"], f"{name}.generator")


def check_partial(found: Any, batches: int, name: str) -> None:
    """Look at the sums of an epoch that is under way, which has come to so many batches.

    Raises:
        Damaged: If they are none.
    """
    names(found, (*PARTIAL, "totals", "random"), name)
    check_like({key: found[key] for key in PARTIAL}, PARTIAL, name)
    require(found["batches"] == batches, f"{name}.batches", f"{batches}, as its images are")
    require(isinstance(found["totals"], dict), f"{name}.totals", "losses by name")
    for key, total in found["totals"].items():
        scalar = isinstance(total, Tensor) and total.ndim == 0 and total.is_floating_point()
        require(isinstance(key, str) and scalar, f"{name}.totals", "losses by name")
    if found["random"] is not None:
        check_random(found["random"], f"{name}.random")


def check_generator(state: Any, name: str) -> None:
    """Try the state of a random generator on one that nobody needs.

    Raises:
        Damaged: If it is none.
    """
    try:
        torch.Generator().set_state(state)
    except (RuntimeError, TypeError) as error:
        raise Damaged(f"is not what a run writes: {name!r} is no state of a random generator") from error


def check_random(state: RandomState, name: str) -> None:
    """Try the states of all random generators on ones that nobody needs.

    Raises:
        Damaged: If they are none.
    """
    try:
        rehearse_random_state(state)
    except WRONG as error:
        raise Damaged(f"is not what a run writes: {name!r} is no state of the random generators") from error


def require(right: bool, name: str, what: str) -> None:
    """Refuse what is not right.

    Raises:
        Damaged: If it is not; it says that ``name`` is not ``what``.
    """
    if not right:
        raise Damaged(f"is not what a run writes: {name[:80]!r} is not {what[:200]}")


def _check_value(value: Any, current: Any, name: str) -> None:
    """Compare a plain value with its like, and make what would be made of it: a threat model refuses what cannot be."""
    for kinds in (Number, list | tuple, dict, str):
        require(not isinstance(current, kinds) or value is None or isinstance(value, kinds), name, KINDS[kinds])
    try:
        restored(current, value)
    except WRONG as error:
        raise Damaged(f"is not what a run writes: {name!r} cannot be ({type(current).__name__})") from error


def _check_tensor(found: Any, like: Tensor, name: str) -> None:
    same = isinstance(found, Tensor) and (found.shape, found.dtype, found.layout) == (
        like.shape,
        like.dtype,
        like.layout,
    )
    require(same, name, f"a tensor of {str(like.dtype).removeprefix('torch.')} and shape {tuple(like.shape)}")


def _check_plain(found: Any, kind: type, name: str) -> None:
    right = type(found) is kind
    if kind is int:
        right = right and 0 <= found < LARGEST
    elif kind is float:
        right = _is_number(found) and math.isfinite(found)
    require(right, name, KINDS.get(kind, kind.__name__))


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < LARGEST)
