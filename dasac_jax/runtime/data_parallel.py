"""Data-parallel training: which rows of a batch a device gets, and the one place that calls pmap.

The state is one logical copy; batches have a leading axis of local devices. The devices get equal
numbers of rows of the source batch and of views of the target batch, in order. The views of one
image may lie on several devices, which then all receive the image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from dasac_jax.errors import UserError
from dasac_jax.runtime import malloc

AXIS = "batch"
_LARGE = 1 << 16  # bytes
_ALIGNED = 64  # JAX takes numpy arrays as they are that begin at a multiple of so many bytes


@dataclass(frozen=True)
class Layout:
    """How a global batch is divided among the devices.

    source_batch and target_batch count images over all devices; each target image gives
    `group_size` views (1 in the baseline). With target_batch 0 steps read no target images. devices
    counts those of all processes, local_devices those of this one, whose number is process.
    """

    source_batch: int
    target_batch: int
    group_size: int
    devices: int
    local_devices: int
    process: int

    @property
    def views(self) -> int:
        """Target views on one device."""
        return self.target_batch * self.group_size // self.devices

    @property
    def source_rows(self) -> range:
        """Rows of the global source batch that this process reads."""
        count = self.source_batch // self.devices * self.local_devices
        return range(self.process * count, (self.process + 1) * count)

    @property
    def local_views(self) -> np.ndarray:
        """(local devices, views) int32: the global views of this process, device by device."""
        count = self.views * self.local_devices
        views = np.arange(self.process * count, (self.process + 1) * count, dtype=np.int32)
        return views.reshape(self.local_devices, self.views)

    @property
    def target_rows(self) -> range:
        """Rows of the global target batch that this process reads."""
        groups = self.local_views // self.group_size
        if not groups.size:
            return range(0)
        return range(int(groups.min()), int(groups.max()) + 1)


def layout(
    name: str,
    source_batch: int,
    target_batch: int,
    group_size: int = 1,
    *,
    devices: int | None = None,
    local_devices: int | None = None,
    process: int | None = None,
) -> Layout:
    """The layout of a stage's batch over all devices and processes, or over what is given.

    Raises UserError, with the device counts that would work, where they do not divide the batch.
    """
    devices = jax.device_count() if devices is None else devices
    local = jax.local_device_count() if local_devices is None else local_devices
    process = jax.process_index() if process is None else process

    def fits(count: int) -> bool:
        if source_batch % count or (target_batch * group_size) % count:
            return False
        views = target_batch * group_size // count
        return views % group_size == 0 or group_size % views == 0

    if not fits(devices):
        works = [str(n) for n in range(1, source_batch + 1) if fits(n)]
        target = f"{target_batch} target images"
        if group_size > 1:
            target = f"{target_batch} groups of {group_size} target views"
        raise UserError(
            f"config.{name}: {devices} devices cannot share {source_batch} source images and "
            f"{target}; device counts that work: {', '.join(works)} (or change the batch)"
        )
    return Layout(source_batch, target_batch, group_size, devices, local, process)


def shard(batch: dict[str, Any], plan: Layout) -> dict[str, np.ndarray]:
    """Add a leading axis of local devices to the loader's batch of this process's rows.

    source_* (b, …) becomes (D, b/D, …), and target_image (g, h, w, 3) becomes (D, n, h, w, 3): for
    each device the n images that its views are of. Added are target_view (D, V) int32, the views'
    global numbers, and target_item (D, n) int32, the images' numbers in the global batch. A batch
    without target images gets none of these.
    """
    local = plan.local_devices
    out = {
        key: batch[key].reshape(local, -1, *batch[key].shape[1:])
        for key in ("source_image", "source_label", "source_item")
    }
    if not plan.target_batch:
        return out
    groups = plan.local_views // plan.group_size
    needed = np.stack([np.unique(row) for row in groups])  # (D, n)
    rows = needed - plan.target_rows.start
    out["target_image"] = batch["target_image"][rows]
    out["target_item"] = needed.astype(np.int32)
    out["target_view"] = plan.local_views
    return out


def data_parallel(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step(state, batch) → (state, metrics)` over all devices, its collectives named AXIS.

    The state goes in and comes out as one logical copy, and its buffers are donated. A state that
    was not replicated first works too, but the step is compiled a second time for it.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, 0),
        donate_argnums=0,
    )


def over_local_devices(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(variables, batch)` on this process's devices, one part of the batch on each."""
    return jax.pmap(function, in_axes=(None, 0), devices=jax.local_devices())


def compile_ahead(program: Callable[..., Any], *arguments: Any) -> None:
    """Compile for these arguments; a call with them finds the program. Frees what that has used.

    Otherwise the memory of the first call would come on top of the compiler's.
    """
    program.lower(*arguments).compile()
    malloc.give_back()


def replicate(tree: Any) -> Any:
    """Put a pytree, equal on all processes, on all their devices as one logical copy."""
    everywhere = NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, everywhere)

    def replicate_array(leaf: Any) -> jax.Array:
        # device_put would first compare the values of all processes, one array after the other.
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, everywhere, lambda index: host[index])

    return jax.tree.map(replicate_array, tree)


def replicate_locally(tree: Any) -> Any:
    """Put a pytree on each of this process's devices, for `over_local_devices`.

    Arrays that `replicate` has put there are not copied. Before several batches are predicted this
    is called once, since otherwise the weights are sent to the devices with each batch.
    """
    here = NamedSharding(_local_mesh(), PartitionSpec())

    def place(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            shards = [shard.data for shard in leaf.addressable_shards]
            return jax.make_array_from_single_device_arrays(leaf.shape, here, shards)
        return jax.device_put(leaf, here)

    return jax.tree.map(place, tree)


def on_first_device(tree: Any) -> Any:
    """A replicated pytree on this process's first device alone, without a copy."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def to_devices(batch: Any) -> Any:
    """Send arrays (D, …) to this process's D devices, one part to each."""
    return jax.device_put(batch, NamedSharding(_local_mesh(), PartitionSpec(AXIS)))


def _local_mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), (AXIS,))


def fetch(tree: Any) -> Any:
    """A pytree of replicated arrays as numpy arrays."""
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)


def copy_to_host(array: Any) -> np.ndarray:
    """A numpy copy of an array, numpy or replicated, for `replicate_on_hosts`."""
    array = array.addressable_data(0) if isinstance(array, jax.Array) else array
    if array.nbytes < _LARGE or jax.process_count() == 1:
        return np.array(array)
    memory = np.empty(array.nbytes + _ALIGNED, np.uint8)
    start = -memory.ctypes.data % _ALIGNED
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Uncopied(np.ndarray):
    """An array that orbax does not copy before it writes it, since nothing changes it meanwhile."""

    def __deepcopy__(self, memo: dict) -> np.ndarray:
        return self


def replicate_on_hosts(array: np.ndarray) -> jax.Array | np.ndarray:
    """An array that all processes have alike as one logical copy, in the memory of the hosts.

    Where there is one process, it is the array as it is, and so it is with 64 bits, which JAX would
    shorten.
    """
    if jax.process_count() == 1 or jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        return array.view(Uncopied)
    try:
        devices, memory = jax.devices("cpu"), None
    except RuntimeError:  # JAX_PLATFORMS names a GPU alone
        devices, memory = jax.devices(), "pinned_host"
    firsts = {device.process_index: device for device in reversed(devices)}
    mesh = Mesh(np.array([firsts[process] for process in sorted(firsts)]), (AXIS,))
    everywhere = NamedSharding(mesh, PartitionSpec(), memory_kind=memory)
    own = SingleDeviceSharding(firsts[jax.process_index()], memory_kind=memory)
    here = [jax.device_put(array, own, may_alias=True)]
    return jax.make_array_from_single_device_arrays(array.shape, everywhere, here)


def first(array: jax.Array) -> np.ndarray:
    """The first local device's value as numpy, for values that are equal on all devices.

    A value with a single element comes without axes, others keep their shape.
    """
    data = np.asarray(array.addressable_data(0))
    return data.reshape(-1)[0] if data.size == 1 else data
