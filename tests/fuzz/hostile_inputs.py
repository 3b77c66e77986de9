"""What a stranger could give the command line: six kinds of input, damaged at random or meant to do harm.

Everything is made from files that are whole (:class:`~hostile_cases.Material`), so that most of it gets far before it
is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from hostile_cases import Case, Material
from hostile_options import arguments, configs
from hostile_photos import archives, images
from hostile_weights import checkpoints, runs
from hypothesis import strategies as st

Inputs = Callable[[Material], st.SearchStrategy[Case]]

MADE: dict[str, Inputs] = {
    "config": configs,
    "arguments": arguments,
    "images": images,
    "archives": archives,
    "checkpoints": checkpoints,
    "runs": runs,
}
KINDS = tuple(MADE)


def cases(kind: str, material: Material) -> st.SearchStrategy[Case]:
    """Return inputs of a kind."""
    return MADE[kind](material)
