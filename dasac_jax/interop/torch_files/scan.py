"""A look through a whole pickle before anything of it is built.

What torch.save does not write is refused here: names that are not allowed, other operations,
lengths beyond the data, and streams whose objects would take far more memory than the stream.
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
# How many bytes follow an operation; where that varies, less the size of the number that says it.
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
    """(the position after the pickle at `start`, the memo entries that it reads); builds nothing.

    Only `names` ("module.name") and `operations` (codes) are allowed. Raises FormatError.
    """
    position, count, containers, kept, stack_global, alien = start, 0, 0, set(), False, None
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
                kept.add(int.from_bytes(data[begin:position], "little"))
            elif code in _CONTAINERS:
                containers += 1
            elif code in _NAMING:
                _check(joined(data[begin:position]), names)
            elif code == _STACK_GLOBAL:
                stack_global = True
            if alien is None and code not in operations:
                alien = code
    except IndexError:
        raise FormatError("truncated or corrupted: a pickle in it runs past the end") from None
    if stack_global:
        _check_computed(bytes(data[start : position + 1]), names)
    if alien is not None:
        name = next(name for name, code in OPERATIONS.items() if code == alien)
        raise FormatError(f"its pickle uses {name}, an operation that torch.save does not write")
    if containers > 1000 + (position - start) // 4:
        raise FormatError("its pickle holds little but empty containers")
    return position + 1, kept


@functools.cache
def _plain_lengths(operations: frozenset[int]) -> list[int]:
    """The lengths of operations that need no look, 0 for all others."""
    plain = [0] * 256
    for code in operations - {STOP, _STACK_GLOBAL} - _NAMING - _GETS - _CONTAINERS:
        plain[code] = 1 + max(SIZES[code], -1)
    return plain


def span(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """(where its argument begins, where it ends) of the operation at `position`."""
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
    """`text` as a one-line message can show it."""
    return text[:100] if text.isprintable() else ascii(text[:100])


def _check(name: str, names: Container[str]) -> None:
    if name not in names:
        raise FormatError(
            f"its pickle asks for {printable(name)}, which is no part of tensors: refused before "
            "anything ran (a file with nothing but a state_dict() can be read)"
        )


def _check_computed(data: bytes, names: Container[str]) -> None:
    """The same for names of protocol 4, which are strings pushed just before, or kept ones."""
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
