"""How many bytes the calls of a compiled program read and write, counted in XLA's text of it.

A call is what the device starts at once: a fusion, a library's function, a copy. It reads its
operands from memory and writes its results; what a fusion computes on the way never gets there. All
of them count in full, and each operand once: that a call may read only a part of an operand, or a
part of it several times, does not show in its types. Nor do the caches of a device show.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_ARRAY = re.compile(r"\b(pred|bf16|[a-z]\d+[a-z0-9]*)\[([\d,]*)\]")
_NAME = re.compile(r"%[\w.-]+")
# Names for memory that is there already, and what waits for a transfer that was counted.
_FREE = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|after-all|partition-id|replica-id"
    r"|opt-barrier|.*-done|.*-update"
)
_KINDS = (
    ("convolutions", re.compile(r"convolution|custom-call .*__(cudnn\$|onednn\$)conv")),
    ("attention", re.compile(r"custom-call .*__cudnn\$fmha")),
    ("products", re.compile(r"dot|custom-call .*__(cublas|onednn\$matmul)|fusion .*__triton_gemm")),
    ("copies", re.compile(r"copy|copy-start|transpose")),
    ("fusions", re.compile(r"fusion")),
)
# Beside their results libraries are given memory to work in, which they may leave alone.
_WORKING_SPACE = re.compile(r"[su]8\[\d+\]\{0\}\)$")


class Instruction(NamedTuple):
    """One line of a program's text."""

    name: str
    result: str  # its type, such as f32[8,3]{1,0} or (f32[8]{0}, s8[0]{0})
    opcode: str
    operands: tuple[str, ...]  # names
    attributes: str  # what stands behind the operands


class Call(NamedTuple):
    """What one instruction moves each time, and how often it runs."""

    kind: str
    instruction: Instruction
    bytes: int
    times: int


def size(types: str) -> int:
    """Bytes of all arrays that types in XLA's words name: 96 of (f32[2,4]{1,0}, bf16[32]{0})."""
    found = (
        (int(re.search(r"\d+", kind).group()) if kind != "pred" else 8, shape)
        for kind, shape in _ARRAY.findall(types)
    )
    return sum(
        bits * math.prod(int(n) for n in shape.split(",") if n) // 8 for bits, shape in found
    )


def computations(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """The instructions of each computation by their names, and the name of the entry."""
    found: dict[str, dict[str, Instruction]] = {}
    entry = ""
    for line in text.splitlines():
        if line.endswith("{") and (name := _NAME.search(line)) and not line.startswith(" "):
            current = found.setdefault(name.group(), {})
            entry = name.group() if line.startswith("ENTRY") else entry
        elif re.match(r"\s+(ROOT )?%[\w.-]+ = ", line):
            instruction = _parse(line)
            current[instruction.name] = instruction
    return found, entry


def _parse(line: str) -> Instruction:
    name, rest = line.strip().removeprefix("ROOT ").split(" = ", 1)
    # A tuple's type holds blanks and comments.
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    result, rest = rest[:end], rest[end:].lstrip()
    opcode, rest = rest.split("(", 1)
    end = _closing("(" + rest)
    return Instruction(name, result, opcode, tuple(_NAME.findall(rest[: end - 1])), rest[end:])


def _closing(text: str) -> int:
    """Where the bracket closes that opens a text."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i
    raise ValueError(f"no closing bracket in {text[:80]!r}")


def calls(text: str) -> list[Call]:
    """What the calls of a program move, whose text `jax.stages.Compiled.as_text` gives.

    A loop's body counts as often as XLA knows that it runs, else once. Of a condition's branches
    the one that moves the most counts.
    """
    found, entry = computations(text)
    return list(_calls(found, entry, 1))


def _calls(found: dict[str, dict[str, Instruction]], name: str, times: int) -> Iterator[Call]:
    for instruction in found[name].values():
        if _FREE.fullmatch(instruction.opcode):
            continue
        inner = _inner(found, instruction, times)
        if inner is not None:
            yield from inner
            continue
        yield Call(_kind(instruction), instruction, _moved(found[name], instruction), times)


def _inner(found, instruction, times):
    """The calls of the computations that an instruction runs; None where it is a call itself."""
    attributes = instruction.attributes
    if instruction.opcode == "while":
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', attributes)
        body = re.search(r"body=(%[\w.-]+)", attributes).group(1)
        return _calls(found, body, times * int(known.group(1)) if known else times)
    if instruction.opcode == "conditional":
        named = re.search(
            r"(branch_computations=\{.*?\}|true_comp.*false_comp\w*=%[\w.-]+)", attributes
        )
        branches = [list(_calls(found, name, times)) for name in _NAME.findall(named.group())]
        return max(branches, key=total)
    if instruction.opcode in ("call", "async-start"):
        called = re.search(r"(?:to_apply|calls)=(%[\w.-]+)", attributes).group(1)
        return _calls(found, called, times)
    return None


def _kind(instruction: Instruction) -> str:
    described = f"{instruction.opcode} {instruction.attributes}"
    return next((kind for kind, pattern in _KINDS if pattern.match(described)), "others")


def _moved(around: dict[str, Instruction], instruction: Instruction) -> int:
    read = sum(size(around[name].result) for name in set(instruction.operands))
    if instruction.opcode.endswith("-start"):
        return 2 * read  # the result's type names the operand, too
    result = instruction.result
    if instruction.opcode == "custom-call":
        result = _WORKING_SPACE.sub("", result)
    return read + size(result)


def total(some: list[Call]) -> int:
    """The bytes of all calls together."""
    return sum(call.bytes * call.times for call in some)


def by_kind(text: str) -> Counter[str]:
    """Bytes of convolutions, attention, products, fusions, copies and others."""
    found: Counter[str] = Counter()
    for call in calls(text):
        found[call.kind] += call.bytes * call.times
    return found
