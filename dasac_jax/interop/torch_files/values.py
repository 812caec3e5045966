"""The names that a PyTorch file's pickle may ask for, and the objects that are built for them.

A tensor is only described here by its place in a storage, because the storages of a legacy file
come after its pickle. `arrays.with_arrays` then replaces the descriptions by arrays.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from dasac_jax.interop.torch_files.scan import FormatError, printable
from dasac_jax.interop.torch_files.unpickler import Name, as_key, pairs

_MAX_DIMENSIONS = 32
_MAX_COUNT = 1 << 48
_MAX_KEY = 64
_MAX_SCALAR = 4096

# PyTorch's classes <key>Storage and their dtypes; other dtypes are saved in untyped storages.
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool", "ComplexDouble": "complex128", "ComplexFloat": "complex64",
}  # fmt: skip
_EXTENDED = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
_NEWER = ("float8_e8m0fnu", "complex32")  # not in every version of ml_dtypes
DTYPES: dict[str, np.dtype] = {
    **{name: np.dtype(name) for name in _STORAGES.values() if name != "bfloat16"},
    **{name: np.dtype(name) for name in ("uint16", "uint32", "uint64")},
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in _EXTENDED},
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in _NEWER if hasattr(ml_dtypes, name)},
}
STORAGE_CLASSES = {DTYPES[dtype]: f"{name}Storage" for name, dtype in _STORAGES.items()}


@dataclass(eq=False)
class Storage:
    """`numel` elements from `start` on of a storage of the file, which has `whole` in all."""

    key: str
    dtype: np.dtype
    start: int
    numel: int
    whole: int


@dataclass(eq=False)
class Tensor:
    """A view of a storage; sizes and strides in elements."""

    storage: Storage | None = None
    dtype: np.dtype | None = None
    offset: int = 0
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    conjugated: bool = False
    negated: bool = False

    def build(self, state: Any) -> None:
        """Read the state of a tensor of old PyTorch: its storage, offset, size and stride.

        Other tensors have a storage already, and their state, a Parameter's, holds no weights.
        """
        if self.storage is None:
            vars(self).update(vars(_tensor(*state)))


@dataclass(eq=False)
class Dtype:
    """A numpy dtype; its state gives the byte order."""

    dtype: np.dtype

    def build(self, state: tuple) -> None:
        _, order, *parts = state
        if parts[:3] != [None, None, None] or order not in ("<", ">", "|", "="):
            raise FormatError("its pickle holds a numpy dtype with fields")
        self.dtype = self.dtype.newbyteorder(order)


@dataclass(eq=False)
class Array:
    """A numpy array; its state gives shape, dtype, order and bytes."""

    array: np.ndarray | None = None

    def build(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        data = _raw(data)
        if type(dtype) is not Dtype or type(data) is not bytes or not _is_shape(shape):
            raise TypeError("not an array")
        if math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise ValueError("not as many bytes as the shape needs")
        array = np.frombuffer(data, dtype.dtype)
        self.array = array.reshape(shape, order="F" if fortran else "C")


class Unused:
    """Stands for a program's settings, such as its arguments; nothing of them is kept."""

    def build(self, state: Any) -> None:
        pass


def _unused(*_: Any) -> Unused:
    return Unused()


def _are_counts(values: Any) -> bool:
    """Whether `values` are few and plausible enough to be sizes, strides or offsets."""
    return (
        isinstance(values, (tuple, list))
        and len(values) <= _MAX_DIMENSIONS
        and all(type(value) is int and 0 <= value <= _MAX_COUNT for value in values)
    )


def _is_shape(values: Any) -> bool:
    """Whether numpy can have an array of these sizes."""
    return _are_counts(values) and math.prod(max(value, 1) for value in values) <= _MAX_COUNT


def _raw(data: bytes | str) -> bytes:
    """`data` as bytes; Python 2 wrote them as strings."""
    return data.encode("utf-8") if isinstance(data, str) else data


def is_dtype(value: Any) -> bool:
    """Whether it is the name of a dtype. Names of storages, which stand for one too, are not."""
    return type(value) is Name and value.path.removeprefix("torch.") in DTYPES


def storage_of(identity: Any) -> Storage:
    """The storage of a persistent id, as either format writes them."""
    kind, *rest = identity if type(identity) is tuple else (None,)
    if type(kind) is str and kind == "module":
        raise FormatError("it holds a whole module; only a file with its state_dict() can be read")
    if type(kind) is not str or kind != "storage" or len(rest) not in (4, 5):
        raise TypeError("not a storage")
    name, key, _, numel, *view = rest
    if type(name) is not Name or not name.path.endswith("Storage"):
        raise TypeError("not a storage")
    if len(key) > _MAX_KEY or not key.isprintable():
        raise ValueError("not the key of a storage")
    start, count = 0, numel
    if view and view[0] is not None:
        _, start, count = view[0]
    if not _are_counts((numel, start, count)) or start + count > numel:
        raise ValueError("not the size of a storage")
    return Storage(key, name.meaning, start, count, numel)


def _tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    if type(storage) is not Storage or not _is_shape(size) or not _are_counts(stride):
        raise TypeError("not a tensor")
    if not _are_counts((offset,)) or len(size) != len(stride):
        raise ValueError("not where a tensor begins, or not as many strides as sizes")
    return Tensor(storage, storage.dtype, offset, tuple(size), tuple(stride))


def _tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata=None) -> Tensor:
    tensor = _parameter(_tensor(storage, offset, size, stride), requires_grad)
    tensor.conjugated = (metadata or {}).get("conj", False) is True
    tensor.negated = (metadata or {}).get("neg", False) is True
    return tensor


def _tensor_v3(storage, offset, size, stride, grad, hooks, dtype, metadata=None) -> Tensor:
    tensor = _tensor_v2(storage, offset, size, stride, grad, hooks, metadata)
    if not is_dtype(dtype):
        raise TypeError("not a dtype")
    tensor.dtype = dtype.meaning
    return tensor


def _parameter(tensor: Tensor, requires_grad: bool = True, *_: Any) -> Tensor:
    if type(tensor) is not Tensor or type(requires_grad) is not bool:
        raise TypeError("not a parameter")
    return tensor


def _tensor_with_attributes(rebuild: Name, _: Name, arguments: tuple, state: Any) -> Tensor:
    if rebuild.meaning not in (_tensor, _tensor_v2, _tensor_v3, _parameter):
        raise TypeError("not a tensor")
    return rebuild.meaning(*arguments)


def _mapping(items: Any = ()) -> dict:
    return pairs(items.items() if isinstance(items, dict) else items)


def _default_mapping(factory: Any = None, items: Any = ()) -> dict:
    return _mapping(items)


def _set(items: list = ()) -> set:
    return {as_key(item) for item in items}


def _old_tensor() -> Tensor:
    return Tensor()


def _size(items: tuple) -> tuple:
    if not _are_counts(items):
        raise TypeError("not a size")
    return items


def _device(kind: str, index: int | None = None) -> str:
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise TypeError("not a device")
    return kind if index is None else f"{kind}:{index}"


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("not the encoding of bytes")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


def _complex(real: float, imaginary: float) -> complex:
    return complex(real, imaginary)


def _numpy_dtype(specification: str, *_: Any) -> Dtype:
    # Numbers, bools and strings only: objects, records and dates have other letters.
    if not re.fullmatch(r"[<>|=]?(\?|b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,9})", specification):
        raise FormatError(f"it holds a numpy array of dtype {printable(specification)}")
    return Dtype(np.dtype(specification))


def _numpy_scalar(dtype: Dtype, data: bytes | str) -> np.generic:
    if dtype.dtype.itemsize != len(_raw(data)) or len(data) > _MAX_SCALAR:
        raise ValueError("not the bytes of one scalar")
    return np.frombuffer(_raw(data), dtype.dtype)[0] if len(data) else dtype.dtype.type()


def _numpy_array(kind: Name, shape: tuple, data: bytes) -> Array:
    return Array()


_NUMPY = {"scalar": _numpy_scalar, "_reconstruct": _numpy_array}
_REBUILD = {
    "tensor": _tensor, "tensor_v2": _tensor_v2, "tensor_v3": _tensor_v3,
    "parameter": _parameter, "parameter_with_state": _parameter,
}  # fmt: skip
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
_BUILTINS = {"set": _set, "bytes": _no_bytes, "complex": _complex, "dict": _mapping}
NAMES: dict[str, Any] = {
    **{f"torch.{name}": dtype for name, dtype in DTYPES.items()},
    **{f"torch.{name}Storage": DTYPES[dtype] for name, dtype in _STORAGES.items()},
    **{f"torch.{name}Tensor": _old_tensor for name in _STORAGES},
    **{f"torch.{path}UntypedStorage": DTYPES["uint8"] for path in ("", "storage.")},
    **{f"torch._utils._rebuild_{name}": meaning for name, meaning in _REBUILD.items()},
    **{f"numpy.{m}.multiarray.{n}": v for m in ("core", "_core") for n, v in _NUMPY.items()},
    **{f"{m}.{n}": v for m in ("builtins", "__builtin__") for n, v in _BUILTINS.items()},
    **{f"{m}.{n}": None for m in ("builtins", "__builtin__") for n in ("int", "float", "list")},
    "torch.Size": _size,
    "torch.device": _device,
    "torch.Tensor": _old_tensor,
    "torch.nn.parameter.Parameter": _parameter,
    "torch._tensor._rebuild_from_type_v2": _tensor_with_attributes,
    "numpy.dtype": _numpy_dtype,
    "numpy.ndarray": None,
    "_codecs.encode": _encode,
    **{f"pathlib.{m}{n}": _unused for m in ("", "_local.") for n in _PATHS},
    "argparse.Namespace": _unused,
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
    "collections.defaultdict": _default_mapping,
}
