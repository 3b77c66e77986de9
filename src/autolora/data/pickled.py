"""Read a pickle of lists, dictionaries, texts, numbers and arrays of bytes, without running anything that is in it.

A pickle is a program for a stack machine that may import any name and call it. The machine here has neither ability:
the few names that such a file needs stand for records, and every other name or instruction is refused. `pickletools`
only takes the instructions apart; what each of them does is in its documentation.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
NAMES = frozenset((*RECONSTRUCT, "numpy.ndarray", "numpy.dtype", "_codecs.encode"))


class Refused(ValueError):
    """A pickle asks for more than data; the message names what."""


@dataclass(frozen=True)
class Name:
    """A global, as a word."""

    dotted: str


@dataclass(eq=False)
class Call:
    """What a pickle would have made by a call, with the state it would have been given."""

    name: str
    args: tuple[Any, ...]
    state: Any = None


def read_pickle(data: bytes) -> Any:
    """Return what a pickle holds. Texts of Python 2 come as latin-1 ``str``, numpy arrays as `Call`; see `bytes_array`.

    Raises:
        Refused: it names something that is no part of plain data.
        ValueError: it is damaged.
    """
    machine = Machine()
    try:
        for instruction, argument, _ in pickletools.genops(BytesIO(data)):
            machine.step(instruction.name, argument)
        return machine.stack.pop()
    except Refused:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, MemoryError) as error:
        raise ValueError(f"no sound pickle: {str(error) or type(error).__name__}") from None


def bytes_array(value: Any) -> NDArray[np.uint8]:
    """Return the array of bytes that `read_pickle` found, as its shape has it.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, Call) or value.name not in RECONSTRUCT or not isinstance(value.state, tuple):
        raise ValueError("there is no array where one should be")
    try:
        _, shape, kind, fortran, data = value.state
        if isinstance(data, Call) and data.name == "_codecs.encode":  # how Python 3 writes bytes for Python 2
            data = data.args[0]
        if kind.name != "numpy.dtype" or kind.args[0] not in ("u1", "|u1") or fortran:
            raise ValueError("not of unsigned bytes in C order")
        raw = data.encode("latin-1") if isinstance(data, str) else memoryview(data)
        return np.frombuffer(raw, dtype=np.uint8).reshape(shape)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"an array in it is not sound: {error}") from None


class Machine:
    """Stack, marks and memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks below the marks
        self.memo: dict[int, Any] = {}  # not a list: an instruction could ask for the four-billionth place

    def step(self, instruction: str, argument: Any) -> None:
        """Do one instruction."""
        if instruction in LITERALS:
            self.stack.append(argument)
        elif instruction in STEPS:
            STEPS[instruction](self, argument)
        elif instruction not in ("PROTO", "FRAME", "STOP"):
            raise Refused(f"instruction {instruction}")

    def mark(self, _: Any) -> None:
        """Begin a new stack above this one."""
        self.below.append(self.stack)
        self.stack = []

    def above_mark(self) -> list[Any]:
        """Return to the stack below the last mark, and give what was above it."""
        above, self.stack = self.stack, self.below.pop()
        return above

    def put(self, key: int | None) -> None:
        """Remember the top."""
        self.memo[len(self.memo) if key is None else key] = self.stack[-1]

    def gather(self, kind: Callable[[list[Any]], Any]) -> None:
        """Push what all above the mark make."""
        above = self.above_mark()
        self.stack.append(kind(above))

    def gather_pairs(self) -> None:
        """Push a dictionary of all above the mark."""
        above = self.above_mark()
        self.stack.append({})
        self.insert(above)

    def join(self, count: int) -> None:
        """Push a tuple of the topmost values."""
        top = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(top)))

    def append(self, values: list[Any]) -> None:
        """Append to the list on top."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("values for what is no list")
        target.extend(values)

    def insert(self, pairs: list[Any]) -> None:
        """Put keys and values, in turn, into the dictionary on top; only texts are keys here."""
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError("items for what is no dictionary")
        keys = [key.decode("latin-1") if isinstance(key, bytes) else key for key in pairs[::2]]
        target.update(zip(map(str.__str__, keys), pairs[1::2], strict=True))

    def mention(self, dotted: str) -> None:
        """Push a name, if it is one of the few."""
        if dotted not in NAMES:
            raise Refused(dotted)
        self.stack.append(Name(dotted))

    def call(self, _: Any) -> None:
        """Push a record of a call."""
        args, what = self.stack.pop(), self.stack.pop()
        if not isinstance(what, Name) or not isinstance(args, tuple):
            raise TypeError("a call of what is no name")
        self.stack.append(Call(what.dotted, args))

    def give_state(self, _: Any) -> None:
        """Note the state of the record below it."""
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Call):
            raise TypeError("a state for what is no object")
        target.state = state


def mention_stacked(machine: Machine, _: Any) -> None:
    """Push the name that lies on the stack as two texts."""
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.mention(f"{module:s}.{name:s}")  # a TypeError where one of them is no text


LITERALS = frozenset({
    "INT", "LONG", "FLOAT", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
})  # fmt: skip
STEPS: dict[str, Callable[[Machine, Any], None]] = {
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "MARK": Machine.mark,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, key: m.stack.append(m.memo[key])),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "LIST": lambda m, _: m.gather(list),
    "TUPLE": lambda m, _: m.gather(tuple),
    "DICT": lambda m, _: m.gather_pairs(),
    "TUPLE1": lambda m, _: m.join(1),
    "TUPLE2": lambda m, _: m.join(2),
    "TUPLE3": lambda m, _: m.join(3),
    "APPEND": lambda m, _: m.append([m.stack.pop()]),
    "APPENDS": lambda m, _: m.append(m.above_mark()),
    "SETITEM": lambda m, _: m.insert([m.stack.pop(), m.stack.pop()][::-1]),
    "SETITEMS": lambda m, _: m.insert(m.above_mark()),
    "GLOBAL": lambda m, argument: m.mention(".".join(argument.split(" ", 1))),
    "STACK_GLOBAL": mention_stacked,
    "REDUCE": Machine.call,
    "BUILD": Machine.give_state,
}
