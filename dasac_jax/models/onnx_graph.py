"""A network written down as ONNX operations: a list of nodes and arrays, without the onnx package.

Each network has a method `onnx` beside its `__call__` that writes the same layers here;
`dasac_jax.export` makes a file of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dasac_jax.errors import UserError

TYPES = {"float32": 1, "uint8": 2, "float16": 10}
"""ONNX's numbers of the types, as in `onnx.TensorProto`."""


class Node(NamedTuple):
    """One operation: its ONNX name, the names of its inputs and of its only output."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class Graph:
    """The nodes in the order of computation, and the arrays that they read, both by name.

    variables: a network's arrays by path, as in "params/layer1/0/conv1/kernel". dtype: that of the
    weights and of the results of the network's layers, float32 or float16.
    """

    def __init__(self, variables: Mapping[str, np.ndarray], dtype: Any = np.float32) -> None:
        self.dtype = np.dtype(dtype)
        self.nodes: list[Node] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._variables = variables
        self._unread = set(variables)
        self._taken: set[str] = set()

    def add(self, op: str, *inputs: str, name: str, **attributes: Any) -> str:
        """Append an operation; returns the name of its output, `name` or `name` with a number."""
        output = self._free(name)
        self.nodes.append(Node(op, inputs, output, attributes))
        return output

    def array(self, name: str, value: Any) -> str:
        """Keep an array as it is; returns its name."""
        name = self._free(name)
        self.arrays[name] = np.asarray(value)
        return name

    def weight(self, name: str, value: np.ndarray) -> str:
        """Keep an array of numbers in the graph's dtype; returns its name.

        Raises UserError for a number that float16 cannot hold.
        """
        largest = np.abs(value).max(initial=0)
        if largest > np.finfo(self.dtype).max:
            raise UserError(
                f"{name} holds numbers up to {largest:g}, float16 ends at "
                f"{np.finfo(self.dtype).max:g}: leave out --float16"
            )
        return self.array(name, np.asarray(value, self.dtype))

    def lowered(self, x: str) -> str:
        """x, an array of float32, in the graph's dtype."""
        if self.dtype == np.float32:
            return x
        return self.add("Cast", x, name=f"{x}/{self.dtype}", to=TYPES[self.dtype.name])

    def float32(self, x: str) -> str:
        """x, an array of the graph's dtype, in float32."""
        if self.dtype == np.float32:
            return x
        return self.add("Cast", x, name=f"{x}/float32", to=TYPES["float32"])

    def variable(self, path: str) -> np.ndarray | None:
        """The network's array at a path, in float32; None where the network has none."""
        self._unread.discard(path)
        value = self._variables.get(path)
        return None if value is None else np.asarray(value, np.float32)

    def unread(self) -> list[str]:
        """The paths of the variables that no layer has asked for: of layers that were forgotten."""
        return sorted(self._unread)

    def _free(self, name: str) -> str:
        free, number = name, 1
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free
