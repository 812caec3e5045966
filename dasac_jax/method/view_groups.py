"""Groups of consecutive views, which may span neighbouring devices."""

import jax

from dasac_jax.errors import UserError


def device_count(axis_name: str | None) -> int:
    """Devices of the mapped axis; without one there is one."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def grouped(views: jax.Array, group_size: int, axis_name: str | None, what: str) -> jax.Array:
    """(V, ...) -> (G, T, ...): whole groups, gathered from neighbouring devices where needed.

    Raises UserError, which calls the group size `what`, where no groups fit the devices.
    """
    here, devices = len(views), device_count(axis_name)
    check(here, devices, group_size, what)
    if here % group_size == 0:
        return views.reshape(-1, group_size, *views.shape[1:])
    span = group_size // here
    neighbours = [list(range(first, first + span)) for first in range(0, devices, span)]
    gathered = jax.lax.all_gather(views, axis_name, axis_index_groups=neighbours)
    return gathered.reshape(1, group_size, *views.shape[1:])


def check(here: int, devices: int, group_size: int, what: str) -> None:
    """Raise UserError, as `grouped` does, where no groups fit `here` views on each device."""
    if not _fits(here, devices, group_size):
        raise UserError(_misfit(here, devices, group_size, what))


def _fits(here, devices, group_size):
    """Whether groups consist of whole devices' views, or devices hold whole groups."""
    if group_size < 1 or here * devices % group_size:
        return False
    return here % group_size == 0 or group_size % here == 0


def _misfit(here, devices, group_size, what):
    total = here * devices
    counts = [n for n in range(1, total + 1) if total % n == 0]
    counts = [str(n) for n in counts if _fits(total // n, n, group_size)]
    remedy = (
        f"device counts that work: {', '.join(counts)}"
        if counts
        else f"{total} views are no multiple of {group_size}: change one of the two"
    )
    return f"{what} = {group_size} does not fit {here} views on each of {devices} devices; {remedy}"
