"""The stack machine that runs a pickle without its one dangerous ability; see :mod:`autolora.pickles`.

The instructions are told apart by :mod:`pickletools`, which parses and does not execute. What each of them does is in
its documentation, ``python -m pickletools --help`` and ``pickletools.opcodes``.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any

from autolora.pickles.vocabulary import Damaged, Name, Record, Refused, Vocabulary

__all__ = ["Persistent", "read_pickle"]

Persistent = Callable[[tuple[Any, ...]], Any]
"""Gives the object that stands outside of the pickle under an identifier, as torch's storages do."""

PLAIN_KEYS = (str, int, float, bytes, Name, type(None))  # weights have names; what has another key is none


def read_pickle(stream: IO[bytes], vocabulary: Vocabulary, persistent: Persistent | None = None) -> Any:
    """Read the next pickle of a stream, and leave the stream behind it.

    Dictionaries, lists, tuples, texts and numbers come as themselves, sets as lists, all else as the vocabulary says.

    Args:
        stream: Where the pickle begins; its ``read`` must clip to what there is, as that of files in memory does.
        vocabulary: What the pickle may name.
        persistent: What it may refer to outside of itself; None if nothing.

    Raises:
        Refused: If it names something else.
        Damaged: If it cannot be read.
    """
    machine = Machine(vocabulary, persistent)
    try:
        for instruction, argument, _ in pickletools.genops(stream):
            machine.step(instruction.name, argument)
        return machine.stack.pop()
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, MemoryError) as error:
        # a program of random bytes can put any value before any instruction
        raise Damaged(f"no sound pickle: {error or type(error).__name__}") from None


class Machine:
    """Stack, marks and memo of one pickle.

    Args:
        vocabulary: What the pickle may name.
        persistent: What it may refer to outside of itself; None if nothing.
    """

    def __init__(self, vocabulary: Vocabulary, persistent: Persistent | None) -> None:
        self.vocabulary = vocabulary
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks below the marks
        self.memo: dict[int, Any] = {}

    def step(self, instruction: str, argument: Any) -> None:
        """Do one instruction.

        Raises:
            Refused: If it asks for something outside of the file: copyreg's registry, or buffers of another process.
        """
        if instruction in LITERALS:
            self.stack.append(argument)
        elif instruction in NEW:
            self.stack.append(NEW[instruction]())
        elif instruction in INSTRUCTIONS:
            INSTRUCTIONS[instruction](self, argument)
        elif instruction not in ("PROTO", "FRAME", "STOP"):
            raise Refused(f"pickle instruction {instruction}")

    def mark(self, _: Any) -> None:
        """Begin a new stack above this one."""
        self.below.append(self.stack)
        self.stack = []

    def above_mark(self) -> list[Any]:
        """Return to the stack below the last mark, and give what was above it."""
        above, self.stack = self.stack, self.below.pop()
        return above

    def pop(self, _: Any) -> None:
        """Drop the top: a value, or a mark."""
        self.stack.pop() if self.stack else self.above_mark()

    def put(self, key: int | None) -> None:
        """Remember the top under a number, or the next one."""
        self.memo[len(self.memo) if key is None else key] = self.stack[-1]

    def get(self, key: int) -> None:
        """Push what is remembered under a number."""
        self.stack.append(self.memo[key])

    def join(self, count: int) -> None:
        """Make a tuple of the topmost values."""
        top = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(top)))

    def gather(self, kind: Callable[[list[Any]], Any]) -> None:
        """Make a list or a tuple of all above the mark."""
        above = self.above_mark()
        self.stack.append(kind(above))

    def gather_pairs(self) -> None:
        """Make a dictionary of all above the mark."""
        above = self.above_mark()
        self.stack.append({})
        self.insert(above)

    def extend(self, values: list[Any]) -> None:
        """Append to the list on top."""
        target = self.stack[-1]
        (target.values if isinstance(target, Record) else target).extend(values)

    def insert(self, pairs: list[Any]) -> None:
        """Put keys and values, in turn, into the dictionary on top."""
        target = self.stack[-1]
        items: dict[Any, Any] = target.items if isinstance(target, Record) else target
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(key, PLAIN_KEYS):
                items[key] = value

    def mention(self, module: str, name: str) -> None:
        """Push a name."""
        self.stack.append(self.vocabulary.name(f"{module:s}.{name:s}"))

    def mention_stacked(self, _: Any) -> None:
        """Push the name that lies on the stack as two texts."""
        name, module = self.stack.pop(), self.stack.pop()
        self.mention(module, name)

    def call(self, what: Any, args: Any) -> None:
        """Push the answer to a call."""
        if not isinstance(what, Name) or not isinstance(args, tuple):
            raise TypeError("a call of what is no name")
        self.stack.append(self.vocabulary.call(what, args))

    def call_stacked(self, _: Any) -> None:
        """Call what lies below its arguments."""
        args, what = self.stack.pop(), self.stack.pop()
        self.call(what, args)

    def call_with_keywords(self, _: Any) -> None:
        """Call without the keyword arguments: nothing that is needed here takes any."""
        self.stack.pop()
        self.call_stacked(None)

    def call_named(self, argument: str) -> None:
        """Call a name that the instruction holds, with all above the mark."""
        args = tuple(self.above_mark())
        self.mention(*argument.split(" ", 1))
        self.call(self.stack.pop(), args)

    def call_marked(self, _: Any) -> None:
        """Call the first above the mark with the others."""
        what, *args = self.above_mark()
        self.call(what, tuple(args))

    def set_state(self, _: Any) -> None:
        """Give attributes to what is below them; those of an ordered dict say nothing here."""
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, dict | list):
            target.set_state(state)

    def refer(self, key: Any) -> None:
        """Push what stands outside of the pickle under an identifier."""
        if self.persistent is None or not isinstance(key, tuple):
            raise ValueError("it refers to something outside of the file")
        self.stack.append(self.persistent(key))


NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,  # sets as lists: to hash the members of a hostile one can take for ever
}
LITERALS = frozenset(  # those that take nothing from the stack, and push what stands in the instruction: numbers, texts
    opcode.name
    for opcode in pickletools.opcodes
    if opcode.arg and not opcode.stack_before and opcode.stack_after not in ([], [pickletools.anyobject])
)
INSTRUCTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine.mark,
    "POP": Machine.pop,
    "POP_MARK": lambda m, _: m.above_mark().clear(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.get),
    "TUPLE": lambda m, _: m.gather(tuple),
    "TUPLE1": lambda m, _: m.join(1),
    "TUPLE2": lambda m, _: m.join(2),
    "TUPLE3": lambda m, _: m.join(3),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda m, _: m.gather(list)),
    "DICT": lambda m, _: m.gather_pairs(),
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda m, _: m.extend(m.above_mark())),
    "SETITEM": lambda m, _: m.insert([m.stack.pop(), m.stack.pop()][::-1]),
    "SETITEMS": lambda m, _: m.insert(m.above_mark()),
    "GLOBAL": lambda m, argument: m.mention(*argument.split(" ", 1)),
    "STACK_GLOBAL": Machine.mention_stacked,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), Machine.call_stacked),
    "NEWOBJ_EX": Machine.call_with_keywords,
    "INST": Machine.call_named,
    "OBJ": Machine.call_marked,
    "BUILD": Machine.set_state,
    "PERSID": Machine.refer,
    "BINPERSID": lambda m, _: m.refer(m.stack.pop()),
}
