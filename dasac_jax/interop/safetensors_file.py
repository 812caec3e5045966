"""Safetensors files, read by their own library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from dasac_jax.errors import UserError

_LENGTH = 8  # bytes at the beginning, which say how long the header is
_LONGEST_HEADER = 100_000_000  # bytes, as the library has it


def is_safetensors(path: Path | str) -> bool:
    """Whether a file begins like one: the length of a header, then the header, which is JSON."""
    try:
        with open(path, "rb") as file:
            begin = file.read(_LENGTH + 1)
    except OSError:
        return False  # whoever reads the file says why
    length = int.from_bytes(begin[:_LENGTH], "little")
    return begin[_LENGTH:] == b"{" and length <= _LONGEST_HEADER


def load(path: Path | str) -> dict[str, np.ndarray]:
    """The tensors of a file by name, in the file's order. Raises UserError if it is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a safetensors file that can be read ({reason})") from None
