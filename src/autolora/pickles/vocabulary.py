"""What a pickle may name, and what stands in its place."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Damaged", "Name", "Record", "Refused", "Vocabulary"]


class Refused(Exception):
    """A file names something that is not in the vocabulary; the message is the dotted name."""


class Damaged(Exception):
    """The bytes of a file do not make sense; the message says where."""


@dataclass(frozen=True)
class Name:
    """A global of a pickle, as a word: ``torch._utils._rebuild_tensor_v2``."""

    dotted: str


@dataclass(eq=False)
class Record:
    """An object of a class that is only kept, such as an ``argparse.Namespace``.

    Args:
        kind: Dotted name of the class.
        args: What it was made from.
        items: What it holds as a dictionary.
        values: What it holds as a list.
        state: Its attributes, mostly a dictionary.
    """

    kind: str
    args: tuple[Any, ...] = ()
    items: dict[Any, Any] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    state: Any = None

    def set_state(self, state: Any) -> None:
        """Keep the attributes."""
        self.state = state


@dataclass(frozen=True)
class Vocabulary:
    """What a pickle may name.

    Args:
        calls: Functions of ours, by the dotted name of what they stand for.
        kinds: Classes whose objects are kept as records.
        words: Names that may only stand somewhere, such as a type.
    """

    calls: Mapping[str, Callable[..., Any]]
    kinds: Container[str]
    words: Container[str]

    def name(self, dotted: str) -> Name:
        """Return a name that the vocabulary knows.

        Raises:
            Refused: If it does not.
        """
        if dotted not in self.calls and dotted not in self.kinds and dotted not in self.words:
            raise Refused(dotted)
        return Name(dotted)

    def call(self, what: Name, args: tuple[Any, ...]) -> Any:
        """Answer a call, or keep it as a record.

        Raises:
            Refused: If the name may stand in a pickle, but not be called.
        """
        if what.dotted in self.calls:
            return self.calls[what.dotted](*args)
        if what.dotted in self.kinds:
            return Record(what.dotted, args)
        raise Refused(what.dotted)
