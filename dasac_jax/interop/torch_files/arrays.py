"""Replaces the tensors that a PyTorch file's pickle describes by numpy arrays of its storages."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dasac_jax.interop.torch_files.scan import FormatError
from dasac_jax.interop.torch_files.unpickler import Name
from dasac_jax.interop.torch_files.values import Array, Dtype, Storage, Tensor, Unused, is_dtype

_MAX_DEPTH = 64
_SPARE_NODES = 1 << 12
_SPARE_BYTES = 64 << 20
_PLAIN = (str, bytes, bool, int, float, complex, type(None), np.generic)


def with_arrays(tree: Any, storages: Mapping[str, memoryview], *, pickle_size: int) -> Any:
    """`tree` with numpy arrays for tensors; they are views of `storages`, the file's raw bytes.

    pickle_size: the size in bytes of the pickle that `tree` was read from. Raises FormatError for a
    tensor that reaches beyond its storage, for a container that contains itself, and where shared
    objects, each counted as often as it is used, add up to far more than the file holds.
    """
    size = sum(len(raw) for raw in storages.values())
    conversion = _Conversion(storages, _SPARE_BYTES + 8 * (size + pickle_size))
    value, nodes = conversion.value(tree, 0)
    if nodes > _SPARE_NODES + 4 * pickle_size:
        raise FormatError(f"its shared containers unfold to {nodes} objects")
    return value


@dataclass
class _Conversion:
    """The state of the walk through a tree.

    bytes_left: the bytes that arrays may still add up to. results: by the identity of an object
    its (value, number of objects in it), or None while its parts are being converted.
    """

    storages: Mapping[str, memoryview]
    bytes_left: int
    results: dict[int, tuple[Any, int] | None] = field(default_factory=dict)

    def value(self, node: Any, depth: int) -> tuple[Any, int]:
        """(the converted object, the number of objects in it); a shared one is converted once."""
        if isinstance(node, _PLAIN):
            return node, 1
        if id(node) in self.results:
            found = self.results[id(node)]
            if found is None:
                raise FormatError("it holds a container that contains itself")
            return found
        if depth > _MAX_DEPTH:
            raise FormatError(f"it is nested deeper than {_MAX_DEPTH} levels")
        self.results[id(node)] = None
        self.results[id(node)] = result = self.convert(node, depth)
        return result

    def convert(self, node: Any, depth: int) -> tuple[Any, int]:
        if type(node) is dict:
            values, nodes = self.all_values(node.values(), depth)
            return dict(zip(node, values, strict=True)), nodes
        if type(node) in (list, tuple):
            values, nodes = self.all_values(node, depth)
            return type(node)(values), nodes
        if type(node) is set:
            return node, 1 + len(node)
        return self.leaf(node), 1

    def all_values(self, nodes, depth: int) -> tuple[list, int]:
        results = [self.value(node, depth + 1) for node in nodes]
        return [value for value, _ in results], 1 + sum(count for _, count in results)

    def leaf(self, node: Any) -> Any:
        if type(node) is Tensor and node.storage is not None:
            return self.tensor(node)
        if type(node) is Array and node.array is not None:
            self.count_bytes(node.array.size * node.array.itemsize)
            return node.array.astype(node.array.dtype.newbyteorder("="), copy=False)
        if type(node) is Dtype:
            return node.dtype
        if type(node) is Unused:
            return None
        if is_dtype(node):
            return node.meaning
        what = node.path if type(node) is Name else type(node).__name__.lower()
        raise FormatError(f"it holds {what} where a value should be")

    def count_bytes(self, size: int) -> None:
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise FormatError("its tensors, each copied, would take far more than the file holds")

    def tensor(self, tensor: Tensor) -> np.ndarray:
        """A tensor as a view of its storage; conjugated or negated ones are copied."""
        raw, itemsize = self.storage_bytes(tensor.storage), tensor.dtype.itemsize
        count = math.prod(tensor.size)
        self.count_bytes(count * itemsize)
        if count == 0:
            return np.empty(tensor.size, tensor.dtype)
        steps = zip(tensor.size, tensor.stride, strict=True)
        last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
        if (last + 1) * itemsize > len(raw):
            raise FormatError(
                f"corrupted: a tensor of shape {tensor.size} leaves its storage "
                f"{tensor.storage.key!r} of {len(raw)} bytes"
            )
        # Along a size of one the stride is never used; the file's may be too large for numpy.
        strides = [
            stride * itemsize if size > 1 else itemsize
            for size, stride in zip(tensor.size, tensor.stride, strict=True)
        ]
        array = np.ndarray(tensor.size, tensor.dtype, raw, tensor.offset * itemsize, strides)
        if array.dtype == bool and array.view(np.uint8).max() > 1:
            raise FormatError("corrupted: a bool tensor in it holds other numbers than 0 and 1")
        if (tensor.conjugated or tensor.negated) and array.dtype.kind not in "fc":
            raise FormatError(f"corrupted: it conjugates or negates a tensor of {array.dtype}")
        array = array.conj() if tensor.conjugated else array
        return -array if tensor.negated else array

    def storage_bytes(self, storage: Storage) -> memoryview:
        """The bytes of a storage, which may be part of one in the file."""
        raw = self.storages[storage.key]
        itemsize = storage.dtype.itemsize
        if storage.whole * itemsize != len(raw):
            raise FormatError(
                f"corrupted: its storage {storage.key!r} has {len(raw)} bytes, "
                f"its pickle says {storage.whole * itemsize}"
            )
        return raw[storage.start * itemsize : (storage.start + storage.numel) * itemsize]
