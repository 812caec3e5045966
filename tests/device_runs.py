"""Ten steps on any number of devices; as a script, one process of several on this machine.

python device_runs.py PORT PROCESSES PROCESS OUTPUT.npz, the package on PYTHONPATH and the
simulated devices of the process in XLA_FLAGS.
"""

import sys
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dasac_jax.method import consistency, optim, state, steps
from dasac_jax.models.layers import (
    BatchNorm,
    Conv,
    channel_dropout,
    conv_norm,
    max_pool_ceil,
)
from dasac_jax.models.relu import relu
from dasac_jax.runtime import data_parallel

STEPS, ITEMS, SIZE, CLASSES = 10, 8, (24, 40), 5
STAGES = ("baseline", "adapt")


def batches(stage: str, group_size: int) -> list[dict[str, np.ndarray]]:
    """The global batches of ten steps, already augmented."""
    rng = np.random.default_rng(7)
    return [_batch(rng, stage, group_size) for _ in range(STEPS)]


def _batch(rng, stage, group_size):
    def images(count):
        coarse = rng.normal(size=(count, SIZE[0] // 8, SIZE[1] // 8, 3))
        blocks = coarse.repeat(8, axis=1).repeat(8, axis=2)
        return (blocks + 0.1 * rng.normal(size=blocks.shape)).astype(np.float32)

    def labels():
        coarse = rng.integers(0, CLASSES + 1, (ITEMS, SIZE[0] // 8, SIZE[1] // 8))
        labels = coarse.repeat(8, axis=1).repeat(8, axis=2)
        return np.where(labels == CLASSES, 255, labels).astype(np.int32)

    items = np.arange(ITEMS, dtype=np.int32)
    batch = {"source_image": images(ITEMS), "source_label": labels(), "source_item": items}
    if stage == "baseline":
        return batch | {"target_image": images(ITEMS), "target_item": items}
    teacher = images(ITEMS // group_size).repeat(group_size, axis=0)
    offsets = rng.uniform(-3, 3, (ITEMS, 2))
    scales, flips = rng.uniform(0.5, 1, ITEMS), rng.choice([-1, 1], ITEMS)
    matrices = consistency.view_matrices(offsets, scales, flips, SIZE)
    noise = 0.3 * rng.normal(size=teacher.shape).astype(np.float32)
    return batch | {
        "target_view": items,
        "teacher_view": teacher,
        "student_view": teacher + noise,
        "padded": np.repeat(rng.random((ITEMS, SIZE[0], 1)) < 0.1, SIZE[1], axis=2),
        "to_reference": np.asarray(matrices[0]),
        "from_reference": np.asarray(matrices[1]),
    }


class TinyNetwork(nn.Module):
    """Two convolutions with batch norm and a dilated head, of the networks' own layers."""

    axis_name: str | None = None
    frozen_norm: bool = False
    dtype: Any = jnp.float32
    num_classes: int = CLASSES
    remat: bool = False  # there is little to keep

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """(B, H, W, 3) → logits (B, h, w, C) float32."""
        x = images
        for i, stride in ((1, 2), (2, 1)):
            conv = Conv(8, stride=stride, dtype=self.dtype, name=f"conv{i}")
            norm = BatchNorm(8, self.axis_name, self.dtype, name=f"bn{i}")
            x = max_pool_ceil(relu(conv_norm(conv, norm, x, self.frozen_norm or not train)))
        x = Conv(12, dtype=self.dtype, name="conv3")(x)
        x = channel_dropout(relu(x), dropout_keys, 0, 0.5)
        classes = self.num_classes
        x = Conv(classes, dilation=2, use_bias=True, dtype=self.dtype, name="classifier")(x)
        return x.astype(jnp.float32)


def variables() -> dict[str, Any]:
    """Weights that are not silent: pseudo labels then do not hang on the last bit."""
    rng = np.random.default_rng(17)
    images = jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.float32)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape)
        if leaf.ndim == 4:
            return (2 * noise / np.prod(leaf.shape[:3]) ** 0.5).astype(np.float32)
        offset = 1 if path[-1].key in ("scale", "var") else 0
        return (offset + 0.1 * noise).astype(np.float32)

    shapes = jax.eval_shape(TinyNetwork().init, jax.random.key(0), images)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def step_and_state(stage: str, group_size: int, axis_name: str | None) -> tuple[Any, Any]:
    """The step of a stage, and the state that it starts from."""
    optimiser = optim.create(1e-3)
    begin = state.create(TinyNetwork(), optimiser, seed=1, variables=variables())
    if stage == "baseline":
        step = partial(steps.baseline_step, model=TinyNetwork(axis_name))
    else:
        step = partial(
            steps.adapt_step,
            model=TinyNetwork(axis_name, frozen_norm=True),
            group_size=group_size,
            target_weight=2.0,
            threshold_lower=0.1,
            steps_per_epoch=8,
            teacher_every_steps=3,
        )
    step = partial(step, optimiser=optimiser, axis_name=axis_name)
    # The views are made already; what is left to the step is to draw what dropout drops.
    return steps.on_views(step, lambda key, raw: raw, STAGES.index(stage)), begin


def train(
    step: Any, run: Any, shards: list[dict[str, np.ndarray]]
) -> tuple[Any, dict[str, np.ndarray]]:
    """The last state; the losses and class prior of every step and the last tensors, by name."""
    log = []
    for shard in shards:
        run, metrics = step(run, shard)
        log.append({name: float(data_parallel.first(value)) for name, value in metrics.items()})
        for label, share in enumerate(data_parallel.fetch(run.class_prior)):
            log[-1][f"class prior {label}"] = float(share)
    result = {name: np.array([entry[name] for entry in log]) for name in log[0]}
    for field in ("params", "batch_stats", "teacher", "opt_state"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(run, field)):
            result[field + jax.tree_util.keystr(path)] = np.asarray(leaf.addressable_data(0))
    return run, result


def split(batch: dict[str, np.ndarray], devices: int) -> dict[str, np.ndarray]:
    """Rows dealt to devices: (B, …) → (D, B / D, …)."""
    return {name: x.reshape(devices, -1, *x.shape[1:]) for name, x in batch.items()}


def main(port: str, processes: str, process: str, output: str) -> None:
    """Both stages as one of several processes; a group of views spans all of them."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"localhost:{port}", int(processes), int(process), initialization_timeout=120
    )
    results = {}
    for stage in STAGES:
        step, run = step_and_state(stage, ITEMS, data_parallel.AXIS)
        first, rows = jax.process_index(), ITEMS // jax.process_count()
        shards = [
            split(
                {name: x[first * rows : (first + 1) * rows] for name, x in batch.items()},
                jax.local_device_count(),
            )
            for batch in batches(stage, ITEMS)
        ]
        # Host copies: a process may not hand its own device's arrays to all of them.
        run = data_parallel.replicate(jax.device_get(run))
        _, result = train(data_parallel.data_parallel(step), run, shards)
        results |= {f"{stage}/{name}": value for name, value in result.items()}
    np.savez(output, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
