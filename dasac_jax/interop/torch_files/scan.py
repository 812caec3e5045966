"""Checks a whole pickle before any object of it is built.

Pickles that torch.save does not write are refused here: those with names that are not allowed,
with other operations, with lengths beyond the data, and those whose objects would take far more
memory than the pickle itself.
"""

import functools
import pickle
import pickletools
from collections import deque
from collections.abc import Container

STOP, _STACK_GLOBAL = pickle.STOP[0], pickle.STACK_GLOBAL[0]
_NAMING = frozenset([pickle.GLOBAL[0], pickle.INST[0]])
_GETS = frozenset([pickle.BINGET[0], pickle.LONG_BINGET[0]])
_CONTAINERS = frozenset(b"]}\x8f\x85")  # lists, dictionaries, sets, tuples of one
_MAX_OPERATIONS = 1 << 24
_MAX_NAME = 256
# SIZES: the number of bytes after an operation's code. Where it varies, a number comes first that
# gives the length, and SIZES has minus the size of that number; _LINES stands for lines of text.
_LINES = -100
_LENGTHS = {
    pickletools.UP_TO_NEWLINE: _LINES,
    pickletools.TAKEN_FROM_ARGUMENT1: -1,
    pickletools.TAKEN_FROM_ARGUMENT4: -4,
    pickletools.TAKEN_FROM_ARGUMENT4U: -4,
    pickletools.TAKEN_FROM_ARGUMENT8U: -8,
}
SIZES = {
    ord(operation.code): _LENGTHS.get(operation.arg.n, operation.arg.n) if operation.arg else 0
    for operation in pickletools.opcodes
}
OPERATIONS = {operation.name: ord(operation.code) for operation in pickletools.opcodes}


class FormatError(Exception):
    """What is wrong with a file; `load_torch_file` adds the path and makes it a UserError."""


def scan(
    data: bytes | memoryview, start: int, names: Container[str], operations: frozenset[int]
) -> tuple[int, set[int]]:
    """Check that the pickle at `start` is complete and asks only for what is allowed.

    names: the allowed ones, "module.name". operations: the codes of those allowed. Returns the
    position after the pickle and the keys of the memo entries that it reads. Raises FormatError.
    """
    position, count, containers, read_keys = start, 0, 0, set()
    stack_global, not_allowed = False, None
    plain = _plain_lengths(operations)
    try:
        while (code := data[position]) != STOP:
            count += 1
            if count > _MAX_OPERATIONS:
                raise FormatError(f"its pickle has more than {_MAX_OPERATIONS} operations")
            if plain[code]:
                position += plain[code]
                continue
            begin, position = span(data, position)
            if code in _GETS:
                read_keys.add(int.from_bytes(data[begin:position], "little"))
            elif code in _CONTAINERS:
                containers += 1
            elif code in _NAMING:
                _check(joined(data[begin:position]), names)
            elif code == _STACK_GLOBAL:
                stack_global = True
            if not_allowed is None and code not in operations:
                not_allowed = code
    except IndexError:
        raise FormatError("truncated or corrupted: a pickle in it runs past the end") from None
    if stack_global:
        _check_computed(bytes(data[start : position + 1]), names)
    if not_allowed is not None:
        name = next(name for name, code in OPERATIONS.items() if code == not_allowed)
        raise FormatError(f"its pickle uses {name}, an operation that torch.save does not write")
    if containers > 1000 + (position - start) // 4:
        raise FormatError("its pickle holds little but empty containers")
    return position + 1, read_keys


@functools.cache
def _plain_lengths(operations: frozenset[int]) -> list[int]:
    """By code, the lengths of the allowed operations that need no check, and 0 for all others."""
    plain = [0] * 256
    for code in operations - {STOP, _STACK_GLOBAL} - _NAMING - _GETS - _CONTAINERS:
        plain[code] = 1 + max(SIZES[code], -1)
    return plain


def span(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """The positions at which the argument of the operation at `position` begins and ends."""
    code, begin = data[position], position + 1
    if code not in SIZES:
        raise FormatError(f"corrupted: its pickle makes no sense at byte {position}")
    size = SIZES[code]
    if size >= 0:
        return begin, begin + size
    if size == _LINES:
        return begin, _after_lines(data, begin, 2 if code in _NAMING else 1)
    return begin - size, begin - size + int.from_bytes(data[begin : begin - size], "little")


def _after_lines(data: bytes | memoryview, position: int, count: int) -> int:
    """The position after `count` lines, none of them longer than a name may be."""
    for _ in range(count):
        length = bytes(data[position : position + _MAX_NAME]).find(b"\n")
        if length < 0 and position + _MAX_NAME > len(data):
            raise IndexError
        if length < 0:
            raise FormatError("corrupted: its pickle has a name without an end")
        position += length + 1
    return position


def joined(lines: bytes | memoryview) -> str:
    """The name in the two lines of a GLOBAL: module.name."""
    return ".".join(bytes(lines).decode("utf-8", "replace").splitlines())


def printable(text: str) -> str:
    """`text` in a form that fits into a message of one line."""
    return text[:100] if text.isprintable() else ascii(text[:100])


def _check(name: str, names: Container[str]) -> None:
    if name not in names:
        raise FormatError(
            f"its pickle asks for {printable(name)}, which is no part of tensors: refused before "
            "anything ran (a file with nothing but a state_dict() can be read)"
        )


def _check_computed(data: bytes, names: Container[str]) -> None:
    """Check the names of protocol 4: two strings, pushed just before or out of the memo."""
    memo, recent = {}, deque([None, None], maxlen=2)
    try:
        for operation, argument, _ in pickletools.genops(data):
            match operation.name:
                case "STACK_GLOBAL":
                    if not all(isinstance(part, str) for part in recent):
                        raise FormatError("its pickle asks for a name that it computes: refused")
                    _check(".".join(recent), names)
                    recent.append(None)
                case "MEMOIZE":
                    memo[len(memo)] = recent[-1]
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = recent[-1]
                case "BINGET" | "LONG_BINGET":
                    recent.append(memo.get(argument))
                case "PROTO" | "FRAME":
                    pass
                case kind:
                    recent.append(argument if "UNICODE" in kind else None)
    except ValueError:
        raise FormatError("corrupted: its pickle cannot be decoded") from None
