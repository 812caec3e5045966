"""A small vision transformer in both stages: it learns, on any number of devices alike."""

from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from dasac_jax.checkpoints import store
from dasac_jax.data import labels
from dasac_jax.data.demo import render
from dasac_jax.evaluation import metrics
from dasac_jax.image.normalise import normalise
from dasac_jax.method import consistency, optim, state, steps
from dasac_jax.models import create_model, dinov2
from dasac_jax.runtime import data_parallel

SIZE = (42, 84)
GROUP = 4
FLIPS = np.array([1.0, -1.0, 1.0, -1.0])
# A tiny network takes longer to compile than to run.
COMPILER = {"xla_backend_optimization_level": 0}


def pictures(split, count, size=SIZE):
    """The demo's images (N, H, W, 3) float32, normalised, and train ids (N, H, W) int32."""
    made = [render.picture(split, i, seed=0, height=size[0], width=size[1]) for i in range(count)]
    images = normalise(np.stack([image for image, _ in made]))
    ids = np.stack([ids for _, ids in made])
    return np.asarray(images), labels.train_ids(ids).astype(np.int32)


def begin(model, optimiser):
    """A state with random weights; drawing them on the device takes long to compile."""
    rng = np.random.default_rng(0)
    images = jax.ShapeDtypeStruct((1, *SIZE, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)

    def draw(path, leaf):
        name, spread = path[-1].key, 0.02
        if name in ("scale", "gamma", "bias"):
            return np.full(leaf.shape, name != "bias", np.float32)
        if "head" in [part.key for part in path]:
            spread = np.prod(leaf.shape[:-1]) ** -0.5
        return (spread * rng.standard_normal(leaf.shape)).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    return state.create(model, optimiser, seed=0, variables=variables)


def adapt_batch(source, target, rng, groups=1):
    """A batch of the adaptation: views of a target image are itself, mirrored, and noise on it."""
    rows = rng.choice(len(source[0]), 4 * groups, replace=False)
    chosen = target[0][rng.choice(len(target[0]), groups, replace=False)]
    views = np.concatenate([np.stack([x, x[:, ::-1], x, x[:, ::-1]]) for x in chosen])
    count = len(views)
    there, back = consistency.view_matrices(
        np.zeros((count, 2)), np.ones(count), np.tile(FLIPS, groups), views.shape[1:3]
    )
    noise = 0.2 * rng.standard_normal(views.shape).astype(np.float32)
    return {
        "source_image": source[0][rows],
        "source_label": source[1][rows],
        "student_view": views + noise,
        "teacher_view": views,
        "padded": np.zeros(views.shape[:3], bool),
        "to_reference": np.asarray(there),
        "from_reference": np.asarray(back),
    }


def mean_iou(predicted, truth):
    counts = np.asarray(metrics.confusion(truth, predicted, 19))
    return metrics.summarise(counts)["miou"]


def step_of(stage, model, optimiser, **options):
    if stage == "baseline":
        return partial(steps.baseline_step, model=model, optimiser=optimiser, **options)
    return partial(
        steps.adapt_step, model=model, optimiser=optimiser, steps_per_epoch=1000,
        teacher_every_steps=2, teacher_momentum=0.8, target_weight=1.0, **options,
    )  # fmt: skip


def test_the_tiny_network_learns_and_adapts():
    model, rng = create_model("dinov2_demo"), np.random.default_rng(0)
    source, target, val = pictures("source", 32), pictures("train", 2), pictures("val", 8)
    options = {"kind": "adamw", "weight_decay": 0.01, "warmup_steps": 5, "encoder_rate": 1.0}
    run = begin(model, optim.create(1.0, **options))
    predict = jax.jit(partial(steps.predict_step, model=model))

    losses = {}
    for stage, rate, count in (("baseline", 2e-3, 60), ("adapt", 5e-4, 20)):
        optimiser = optim.create(rate, total_steps=2 * count, **options)
        step = jax.jit(step_of(stage, model, optimiser), compiler_options=COMPILER)
        run = run.replace(step=np.int32(0), opt_state=optimiser.init(run.params))
        log = []
        for _ in range(count):
            batch = adapt_batch(source, target, rng)
            if stage == "baseline":
                batch = {key: batch[key] for key in ("source_image", "source_label")}
            run, found = step(run, batch)
            log.append({name: float(value) for name, value in found.items()})
        losses[stage] = {name: [entry[name] for entry in log] for name in log[0]}

    assert set(losses["baseline"]) == {"loss_source", "skipped"}  # the target has no part in it
    for stage, fall in (("baseline", 0.75), ("adapt", 1.0)):
        loss = losses[stage]["loss_source"]
        assert np.mean(loss[-5:]) < fall * np.mean(loss[:5]), stage
        assert not any(losses[stage]["skipped"])
    assert np.mean(losses["adapt"]["loss_target"][-5:]) < np.mean(
        losses["adapt"]["loss_target"][:5]
    )
    assert min(losses["adapt"]["labelled"]) > 0.1

    constant = max(mean_iou(np.full_like(val[1], c), val[1]) for c in range(19))
    for variables in (run.student, run.teacher):
        predicted, _ = predict(variables, val[0])
        assert mean_iou(predicted, val[1]) > 2 * constant


@pytest.fixture(scope="module")
def small():
    """A network that compiles in no time, and global batches of three steps."""
    model = dinov2.DINOv2Segmenter(width=16, depth=1, heads=2, num_classes=4)
    rng, size = np.random.default_rng(1), (28, 56)
    (images, truth), (target, _) = pictures("source", 12, size), pictures("train", 4, size)
    source = images, np.where(truth < 19, truth % 4, truth)
    return model, [adapt_batch(source, (target,), rng, groups=2) for _ in range(3)]


def compiled(model, devices, **options):
    """The adaptation's step over the first devices, and the state before it."""
    optimiser = optim.create(1e-3, kind="adamw", warmup_steps=2, layer_decay=0.9)
    mesh = Mesh(np.array(jax.local_devices()[:devices]), (data_parallel.AXIS,))
    step = step_of("adapt", model, optimiser, axis_name=data_parallel.AXIS, **options)
    specs = (PartitionSpec(), PartitionSpec(data_parallel.AXIS))
    step = jax.shard_map(
        step, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
    )
    return jax.jit(step, compiler_options=COMPILER), begin(model, optimiser)


@pytest.fixture(scope="module")
def alone(small):
    """On one device."""
    return compiled(small[0], 1)


def trained(step, run, batches):
    """The metrics of every step and the last state."""
    log = []
    for batch in batches:
        run, found = step(run, batch)
        log.append([float(value) for value in found.values()])
    return np.array(log), jax.device_get(run)


def assert_alike(ours, theirs):
    """Metrics and the students' weights, up to rounding."""
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    weights = (jax.tree.leaves(run.student) for _, run in (ours, theirs))
    for mine, other in zip(*weights, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=2e-6)


def test_one_and_four_devices_train_alike(small, alone):
    """With four of them a group's views lie on two devices."""
    model, batches = small
    assert_alike(trained(*compiled(model, 4), batches), trained(*alone, batches))


def test_in_parts_and_computed_anew_it_trains_alike(small, alone):
    model, batches = small
    other = compiled(model.clone(remat=True), 1, accumulate=2)
    assert_alike(trained(*other, batches), trained(*alone, batches))


def test_it_resumes_with_the_same_bits(small, alone, tmp_path):
    """AdamW's moments and the counts of its warm-up and schedule included."""
    (_, batches), (step, run) = small, alone
    _, expected = trained(step, run, batches)
    _, interrupted = trained(step, run, batches[:1])
    manager = store.open_manager(tmp_path)
    store.save(manager, interrupted, metadata={})
    store.finish(manager)
    restored, _ = store.restore(tmp_path, jax.eval_shape(lambda: run))
    _, resumed = trained(step, restored, batches[1:])
    jax.tree.map(np.testing.assert_array_equal, resumed, expected)
