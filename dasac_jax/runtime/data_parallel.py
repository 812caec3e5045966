"""The data-parallel boundary: which rows a device gets, and the one place that calls pmap.

The state is one logical copy; batches carry a leading axis of local devices. Rows of the source
batch and views of the target batch are dealt to the devices in order; a group of views may span
devices, which then all receive its image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dasac_jax.errors import UserError

AXIS = "batch"


@dataclass(frozen=True)
class Layout:
    """How a global batch lies on the devices.

    source_batch and target_batch count images over all devices; a target image gives
    `group_size` views (1 in the baseline).
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
    """A batch of this process's rows, from the loader, with a leading axis of local devices.

    source_* (b, …) → (D, b/D, …); target_image (g, h, w, 3) → (D, images that the device's views
    come from, h, w, 3); adds target_view (D, V), the views' global numbers, and target_item.
    """
    local = plan.local_devices
    out = {
        key: batch[key].reshape(local, -1, *batch[key].shape[1:])
        for key in ("source_image", "source_label", "source_item")
    }
    groups = plan.local_views // plan.group_size
    needed = np.stack([np.unique(row) for row in groups])  # (D, images of a device)
    rows = needed - plan.target_rows.start
    out["target_image"] = batch["target_image"][rows]
    out["target_item"] = needed.astype(np.int32)
    out["target_view"] = plan.local_views
    return out


def data_parallel(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step(state, batch) → (state, metrics)` over all devices, its collectives named AXIS.

    The state goes in and comes out as one copy (replicate it first, so that it compiles once);
    its buffers are donated.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, 0),
        donate_argnums=0,
    )


def over_local_devices(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(variables, batch)` on this process's devices, one shard of the batch each."""
    return jax.pmap(function, in_axes=(None, 0), devices=jax.local_devices())


def replicate(tree: Any) -> Any:
    """One logical copy of a pytree on all devices of all processes, which hold the same values."""
    everywhere = NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, everywhere)

    def spread(leaf: Any) -> jax.Array:
        # device_put would compare the values of all processes, one leaf after the other.
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, everywhere, lambda index: host[index])

    return jax.tree.map(spread, tree)


def fetch(tree: Any) -> Any:
    """A pytree of replicated arrays as numpy arrays."""
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)


def first(array: jax.Array) -> np.ndarray:
    """The value that every device holds: replicated, or with a leading axis of devices."""
    data = np.asarray(array.addressable_data(0))
    return data.reshape(-1)[0] if data.size == 1 else data
