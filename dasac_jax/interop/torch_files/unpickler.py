"""Reads pickles as torch.save writes them, without running any code that they name.

Python's own unpickler is not used: it calls any function that a pickle names, sets attributes of
any object, and lets a few bytes take much memory. This one builds plain containers, and calls only
this package's own constructors, which stand for the allowed names.
"""

import pickle
import struct
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

from dasac_jax.interop.torch_files.scan import (
    OPERATIONS,
    SIZES,
    STOP,
    FormatError,
    joined,
    scan,
    span,
)

_MAX_MARKS = 256
_MAX_KEY = 4096


@dataclass(frozen=True, eq=False)
class Name:
    """An allowed name, which stands for a constructor of this package, a dtype, or None."""

    path: str
    meaning: Any


def read_pickle(
    data: bytes | memoryview,
    start: int,
    *,
    names: Mapping[str, Any],
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Read the pickle at `start`. Returns its object and the position after it.

    names: the allowed ones, {"module.name": meaning}. persistent: returns the object of a
    persistent id. Raises FormatError; a name that is not allowed is noticed before any object is
    built.
    """
    end, read_keys = scan(data, start, names, _OPERATIONS)
    machine = _Machine(end - start, names, persistent, read_keys)
    data, position = bytes(data[start:end]), 0
    try:
        while (code := data[position]) != STOP:
            if SIZES[code] >= 0:
                begin, position = position + 1, position + 1 + SIZES[code]
            else:
                begin, position = span(data, position)
            _HANDLERS[code](machine, data[begin:position])
        (value,) = machine.stack
        if machine.outer:
            raise ValueError("a mark without its end")
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        raise FormatError(f"corrupted: its pickle makes no sense at byte {position}") from None
    return value, end


class _Machine:
    """The state while a pickle is read: the stack, the stacks below its marks, and the memo."""

    def __init__(self, size, names, persistent, read_keys):
        self.names, self.persistent, self.read_keys = names, persistent, read_keys
        self.stack: list = []
        self.outer: list[list] = []
        self.memo: dict[int, Any] = {}
        self.puts = 0
        # A short pickle must not pass one long object to constructors again and again.
        self.argument_items_left = 4096 + 4 * size

    def protocol(self, number: int):
        if number > pickle.HIGHEST_PROTOCOL:
            raise ValueError("a protocol that does not exist")

    def mark(self, _):
        if len(self.outer) >= _MAX_MARKS:
            raise FormatError("its pickle nests too deeply")
        self.outer.append(self.stack)
        self.stack = []

    def since_mark(self, _=None) -> list:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def tuple_since_mark(self, _):
        items = tuple(self.since_mark())
        self.stack.append(items)

    def put(self, index: int):
        self.puts += 1
        # Entries that are never read would only take memory.
        if index in self.read_keys:
            self.memo[index] = self.stack[-1]

    def get(self, payload):
        self.stack.append(self.memo[_unsigned(payload)])

    def push_name(self, path: str):
        self.stack.append(Name(path, self.names[path]))

    def stack_global(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        self.push_name(f"{module}.{name}")

    def reduce(self, _):
        arguments, name = self.stack.pop(), self.stack.pop()
        if type(name) is not Name or type(arguments) is not tuple:
            raise TypeError("calls what cannot be called")
        self.count_arguments(arguments)
        self.stack.append(name.meaning(*arguments))

    def count_arguments(self, arguments: tuple):
        sizes = (len(value) for value in arguments if isinstance(value, Sized))
        self.argument_items_left -= len(arguments) + sum(sizes)
        if self.argument_items_left < 0:
            raise FormatError("its pickle uses long objects again and again")

    def build(self, _):
        state = self.stack.pop()
        self.count_arguments(state if type(state) is tuple else ())
        # The state of an OrderedDict, such as a state_dict's _metadata, holds no weights.
        if type(self.stack[-1]) is not dict:
            self.stack[-1].build(state)

    def target(self, kind: type):
        if type(self.stack[-1]) is not kind:
            raise TypeError("fills what is no container of that kind")
        return self.stack[-1]

    def append(self, items: list):
        self.target(list).extend(items)

    def update(self, items: list):
        self.target(dict).update(pairs(zip(items[::2], items[1::2], strict=True)))

    def add(self, items: list):
        self.target(set).update(map(as_key, items))

    def last(self, count: int) -> list:
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def persistent_id(self, _):
        self.stack.append(self.persistent(self.stack.pop()))


def pairs(items) -> dict:
    """A dictionary of (key, value) pairs. Raises TypeError for a key that is not allowed."""
    return {as_key(key): value for key, value in items}


def as_key(value: Any) -> Any:
    """`value`, if it may be a key. Raises TypeError for other types, long strings, large numbers.

    What is allowed is hashed quickly, and a file cannot choose many keys of the same hash.
    """
    if isinstance(value, (str, bytes)):
        allowed = len(value) <= _MAX_KEY
    elif type(value) is int:
        allowed = -(1 << 63) <= value < 1 << 64
    else:
        allowed = isinstance(value, (bool, float, type(None), np.generic))
    if not allowed or isinstance(value, np.complexfloating):
        raise TypeError("not a key that torch.save writes")
    return value


def _unsigned(payload: bytes) -> int:
    return int.from_bytes(payload, "little")


def _signed(payload: bytes) -> int:
    return int.from_bytes(payload, "little", signed=True)


def _double(payload: bytes) -> float:
    return struct.unpack(">d", payload)[0]


def _unicode(payload: bytes) -> str:
    return str(payload, "utf-8", "surrogatepass")


def _python2_string(payload: bytes) -> str | bytes:
    """A string of Python 2, which may be text or bytes: text where it is UTF-8."""
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError:
        return payload


def _push(decode: Callable[[bytes], Any]) -> Callable[[_Machine, bytes], None]:
    return lambda machine, payload: machine.stack.append(decode(payload))


def _join(count: int) -> Callable[[_Machine, bytes], None]:
    return lambda machine, _: machine.stack.append(tuple(machine.last(count)))


_BY_NAME = {
    "PROTO": lambda machine, payload: machine.protocol(payload[0]),
    "FRAME": lambda machine, _: None,
    "NONE": _push(lambda _: None),
    "NEWTRUE": _push(lambda _: True),
    "NEWFALSE": _push(lambda _: False),
    "BININT LONG1": _push(_signed),
    "BININT1 BININT2": _push(_unsigned),
    "BINFLOAT": _push(_double),
    "BINSTRING SHORT_BINSTRING": _push(_python2_string),
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8": _push(_unicode),
    "BINBYTES SHORT_BINBYTES BINBYTES8": _push(bytes),
    "EMPTY_TUPLE": _push(lambda _: ()),
    "EMPTY_LIST": _push(lambda _: []),
    "EMPTY_DICT": _push(lambda _: {}),
    "EMPTY_SET": _push(lambda _: set()),
    "MARK": _Machine.mark,
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": _Machine.since_mark,
    "TUPLE": _Machine.tuple_since_mark,
    "TUPLE1": _join(1),
    "TUPLE2": _join(2),
    "TUPLE3": _join(3),
    "APPEND": lambda machine, _: machine.append(machine.last(1)),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.update(machine.last(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.since_mark()),
    "BINPUT LONG_BINPUT": lambda machine, payload: machine.put(_unsigned(payload)),
    "MEMOIZE": lambda machine, _: machine.put(machine.puts),
    "BINGET LONG_BINGET": _Machine.get,
    "GLOBAL": lambda machine, payload: machine.push_name(joined(payload)),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE NEWOBJ": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}
_HANDLERS = {
    OPERATIONS[name]: handler for names, handler in _BY_NAME.items() for name in names.split()
}
_OPERATIONS = frozenset([*_HANDLERS, STOP])
