"""The authors' short trainings, made again: their inputs, and how far an end lies from theirs."""

import json
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import compiling
import jax
import numpy as np

from dasac_jax.interop import state_dict_from_variables, variables_from_state_dict
from dasac_jax.method import consistency

GOLDEN = Path(__file__).parent / "golden"

# Other tests compile without optimising, since their programs run once. Numbers are compared with
# the authors' as users get them: optimised.
optimised = partial(jax.jit, compiler_options=compiling.OPTIMISED)

# What an end may differ by. Three steps move old weights by 7e-7 only, and biases by little more:
# with bounds much looser than these, a wrong optimiser passes.
BASELINE_BOUNDS = {
    "losses": 1e-5,
    "weights": 1e-7,
    "biases": 3e-6,
    "statistics": 1e-5,
    "sums": 5e-6,
}
ADAPT_BOUNDS = {
    "losses": 5e-5,
    "class prior": 1e-5,
    "labelled": 1e-4,
    "teacher distance": 1,  # in units of 2e-4 + 2e-3 · value: it carries the original's rounding
    "student": 1e-6,
    "teacher": 1e-6,
    "change": 5e-3,
}

_PIECE = 2**15

# The columns of an adaptation's log.
ADAPT_LOG = (
    "loss_source",
    "loss_target_supervised",
    "loss_target",
    "teacher_distance",
    "labelled",
)


@lru_cache(maxsize=2)  # drawing those of FCN takes seconds, and holding them half a gibibyte
def start(recipe: ModuleType, arch: str) -> dict[str, np.ndarray]:
    """The state_dict that every golden run of `arch` starts from; not to be changed."""
    shapes = json.loads((GOLDEN / f"state_dict_{arch}.json").read_text())
    return {name: recipe.parameter(name, tuple(shape)) for name, shape in shapes.items()}


def variables(arch: str, state_dict: dict[str, np.ndarray]) -> dict[str, Any]:
    """The same as a pytree on the device."""
    return jax.device_put(variables_from_state_dict(arch, state_dict))


def baseline_batch(recipe: ModuleType, step: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The source and target images of one step."""
    shape = settings["batch"], settings["height"], settings["width"]
    batch = {}
    for domain in ("source", "target"):
        name = f"small/{step}/{domain}"
        batch[f"{domain}_image"] = recipe.image(name, *shape)
        batch[f"{domain}_label"] = recipe.labels(f"{name}_labels", *shape, ignore=(18,))
    return batch


def adapt_batch(recipe: ModuleType, step: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The source images and the target views of one step."""
    groups, size = settings["groups"], settings["group_size"]
    shape = groups * size, settings["height"], settings["width"]
    tag = {"pixel": "small", "batch": "smallbatch"}[settings["weighting"]]
    source, target = f"{tag}/{step}/source", f"{tag}/{step}/target"
    weak = recipe.image(f"{target}/weak", *shape)
    padded = recipe.labels(f"{target}/pad", *shape, classes=12) == 0
    labels = recipe.labels(f"{target}/labels", *shape, ignore=(0,))
    crops = windows(recipe.uniform(f"{target}/crops", (groups, size, 4), 0, 1), shape[1:])
    to_reference, from_reference = consistency.view_matrices(*crops, shape[1:])
    return {
        "source_image": recipe.image(source, *shape),
        "source_label": recipe.labels(f"{source}_labels", *shape, ignore=(18,)),
        "teacher_view": weak,
        "student_view": weak + recipe.uniform(f"{target}/photometric", weak.shape, -0.3, 0.3),
        "target_label": np.where(padded, -1, labels),
        "padded": padded,
        "to_reference": to_reference,
        "from_reference": from_reference,
    }


def windows(drawn: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Uniforms (G, T, 4) → offsets (V, 2), scales (V,), flips (V,) of the views of a frame."""
    height, width = size
    flips = np.where(drawn[..., 0] > 0.5, -1, 1)
    scales, offsets = np.ones(drawn.shape[:2]), np.zeros((*drawn.shape[:2], 2))
    for group, view in np.ndindex(*drawn.shape[:2]):
        if view == 0:
            continue
        _, u, v, w = drawn[group, view]
        s = 0.5 + 0.49 * u
        h, w_in = int(s * height), int(s * width)
        top, left = int(v * (height - h + 1)), int(w * (width - w_in + 1))
        scales[group, view] = s
        offsets[group, view] = top + h / 2 - height / 2, left + w_in / 2 - width / 2
    return offsets.reshape(-1, 2), scales.ravel(), flips.ravel()


def tensor_errors(
    arch: str, ours: dict[str, Any], recorded: np.ndarray, keys: np.ndarray
) -> dict[str, float]:
    """Worst relative error of the norms by kind of tensor, and of the sums against the L1 norm."""
    state_dict = state_dict_from_variables(arch, jax.device_get(ours))
    worst = dict.fromkeys(("weights", "biases", "statistics", "sums"), 0.0)
    for key, (total, norm) in zip(keys, recorded, strict=True):
        ours, kind = _sums(state_dict[key]), _kind(key)
        worst[kind] = max(worst[kind], abs(ours.norm - norm) / norm)
        worst["sums"] = max(worst["sums"], abs(ours.total - total) / ours.absolute)
    return worst


def change_error(
    arch: str,
    ours: dict[str, Any],
    begin: dict[str, np.ndarray],
    recorded: np.ndarray,
    keys: np.ndarray,
) -> float:
    """‖Δours − Δgolden‖ / ‖Δgolden‖, Δ being the change of every parameter's norm."""
    state_dict = state_dict_from_variables(arch, jax.device_get(ours))
    parameters = [i for i, key in enumerate(keys) if _kind(key) != "statistics"]
    before = np.array([_sums(begin[keys[i]]).norm for i in parameters])
    after = np.array([_sums(state_dict[keys[i]]).norm for i in parameters])
    golden = recorded[parameters, 1]
    return np.linalg.norm(after - golden) / np.linalg.norm(golden - before)


def adapt_errors(
    log: np.ndarray, priors: np.ndarray, recorded: dict[str, np.ndarray], first: int = 0
) -> dict[str, float]:
    """Errors of an adaptation's steps from `first` on: `log` (steps, 5), `priors` (steps, C)."""
    rows = slice(first, first + len(log))
    theirs, their_priors = recorded["log"][rows], recorded["class_prior"][rows]
    losses, distance, labelled = slice(0, 3), 3, 4
    apart = np.abs(log - theirs)
    return {
        "losses": (apart[:, losses] / theirs[:, losses]).max(),
        "teacher distance": (apart[:, distance] / (2e-4 + 2e-3 * theirs[:, distance])).max(),
        "labelled": apart[:, labelled].max(),
        "class prior": max(map(relative, priors, their_priors)),
    }


def adapt_end_errors(
    arch: str, end: Any, begin: dict[str, np.ndarray], recorded: dict[str, np.ndarray]
) -> dict[str, float]:
    """Errors of an adaptation's last state: norms of student and teacher, and their change."""
    keys, errors = recorded["keys"], {}
    for name, ours in (("student", end.student), ("teacher", end.teacher)):
        norms = tensor_errors(arch, ours, recorded[name], keys)
        errors[name] = max(norms[kind] for kind in ("weights", "biases", "statistics"))
    errors["change"] = change_error(arch, end.student, begin, recorded["student"], keys)
    return errors


def relative(ours: Any, theirs: Any) -> float:
    """‖ours − theirs‖ / ‖theirs‖, of arrays of one shape."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def exceeded(errors: dict[str, float], bounds: dict[str, float]) -> dict[str, float]:
    """The errors that lie outside their bounds (a NaN does)."""
    return {kind: error for kind, error in errors.items() if not error <= bounds[kind]}


class _Sums(NamedTuple):
    """Of a tensor's values in float64: their sum, that of their sizes, and the Euclidean norm."""

    total: float
    absolute: float
    norm: float


def _sums(values: np.ndarray) -> _Sums:
    total = absolute = square = 0.0
    values = values.ravel(order="K")  # as they lie in memory, since their order does not matter
    # In pieces that fit the processor's cache: the largest tensor has a hundred million values.
    for start in range(0, values.size, _PIECE):
        piece = values[start : start + _PIECE].astype(np.float64)
        total += piece.sum()
        absolute += np.abs(piece).sum()
        square += piece @ piece
    return _Sums(total, absolute, square**0.5)


def _kind(key):
    if "running" in key:
        return "statistics"
    return "biases" if key.endswith("bias") else "weights"
