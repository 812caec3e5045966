"""The training steps and their options, on a tiny network."""

import importlib.util
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.method import consistency, optim, state, steps
from dasac_jax.models import upsample
from dasac_jax.models.deeplabv2 import DeepLabV2ResNet
from dasac_jax.runtime import data_parallel

BETA = 1e-3
# A tiny network takes longer to compile than to run.
quickly_compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
OPTIONS = {"group_size": 4, "target_weight": 2.0, "threshold_lower": 0.1, "steps_per_epoch": 1000}


@pytest.fixture(scope="module")
def tiny():
    path = Path(__file__).parents[1] / "device_runs.py"
    specification = importlib.util.spec_from_file_location("device_runs", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(tiny):
    return tiny.TinyNetwork(frozen_norm=True)


@pytest.fixture(scope="module")
def batches(tiny):
    return tiny.batches("adapt", OPTIONS["group_size"])


@pytest.fixture
def run(tiny):
    return begin(tiny)


def begin(tiny, kind="sgd"):
    optimiser = optim.create(1e-3, kind=kind)
    return state.create(tiny.TinyNetwork(), optimiser, seed=0, variables=tiny.variables())


def adapt(model, kind="sgd", **options):
    return partial(
        steps.adapt_step, model=model, optimiser=optim.create(1e-3, kind=kind), **OPTIONS | options
    )


# What a compiled step can be given without being compiled anew.
VALUES = {
    "target_weight": 2.0,
    "teacher_every_steps": 100,
    "steps_per_epoch": 1000,
    "teacher_momentum": 0.99,
    "focal_power": 3.0,
    "threshold_lower": 0.1,
    "threshold_upper": 0.75,
    "prior_momentum": 0.99,
    "beta": BETA,
}


@pytest.fixture(scope="module")
def step(model):
    """step(state, batch, **values)."""
    compiled = quickly_compiled(lambda run, batch, values: adapt(model, **values)(run, batch))
    return lambda run, batch, **values: compiled(run, batch, VALUES | values)


@pytest.fixture(scope="module")
def look(model):
    """look(state, batch, **options) → metrics and class prior; the gradient is left out."""

    @cache
    def compiled(**options):
        def function(run, batch, values):
            run, metrics = adapt(model, **options, **values)(run, batch)
            return metrics, run.class_prior

        return quickly_compiled(function)

    def function(run, batch, **options):
        fixed = {name: value for name, value in options.items() if name not in VALUES}
        return compiled(**fixed)(
            run, batch, VALUES | {n: options[n] for n in options if n in VALUES}
        )

    return function


def assert_trees_equal(ours, theirs, rtol=0.0):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=1e-8), ours, theirs)


def changed(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)


class TestOptionsOfTheMethod:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"pool": "minentropy"},
            {"pool": "none"},
            {"discount": False},
            {"confidence_weighting": "none"},
            {"confidence_weighting": "batch", "confidence_images": 2},
            {"focal_power": 0.0},
            {"threshold_lower": 0.6},
            {"threshold_upper": 0.95},
            {"prior_momentum": 0.5},
            {"beta": 0.5},
        ],
        ids=str,
    )
    def test_reaches_the_loss(self, options, model, look, run, batches):
        batch = batches[0]
        # A step that is no first one: the prior is not reset to β.
        prior = jnp.array([2e-4, 5e-4, BETA, 0.02, 0.3])
        run = run.replace(step=jnp.int32(1), class_prior=prior)
        metrics, updated = look(run, batch, **options)
        expected = by_hand(model, run, batch, **options)
        assert metrics["loss_target"] == pytest.approx(float(expected["loss"]), rel=1e-5)
        assert metrics["labelled"] == pytest.approx(float(expected["labelled"]), abs=1e-6)
        np.testing.assert_allclose(updated, expected["prior"], rtol=1e-5)
        if options:
            plain = by_hand(model, run, batch)
            assert any(abs(plain[name] - expected[name]).max() > 1e-4 for name in plain)

    def test_zooming_out(self, model, look, run, batches):
        # Views of 1.5 times the frame: the frame fills their middle two thirds.
        height, width = batches[0]["padded"].shape[1:]
        padded = np.ones((8, height, width), bool)
        padded[:, height // 6 : -height // 6, width // 6 : -width // 6] = False
        to_reference, from_reference = consistency.view_matrices(
            np.zeros((8, 2)), np.full(8, 1.5), np.ones(8), (height, width)
        )
        batch = batches[0] | {
            "padded": padded, "to_reference": to_reference, "from_reference": from_reference
        }  # fmt: skip
        metrics, _ = look(run, batch)
        assert 0 < metrics["labelled"] < 1 - padded.mean()
        expected = by_hand(model, run.replace(class_prior=jnp.full(5, BETA)), batch)
        assert metrics["loss_target"] == pytest.approx(float(expected["loss"]), rel=1e-5)


def by_hand(
    model,
    run,
    batch,
    *,
    pool="average",
    discount=True,
    confidence_weighting="pixel",
    confidence_images=None,
    focal_power=3.0,
    threshold_lower=0.1,
    threshold_upper=0.75,
    prior_momentum=0.99,
    beta=BETA,
):
    """What the method's functions give when they are called one by one; nothing is dropped out."""
    size = batch["padded"].shape[1:]
    views = batch["padded"], batch["to_reference"], batch["from_reference"]
    probs = jax.nn.softmax(upsample(model.apply(run.teacher, batch["teacher_view"]), size))
    prior = consistency.update_class_prior(
        run.class_prior, probs, momentum=prior_momentum, beta=beta
    )
    refined = consistency.fuse_views(probs, *views, group_size=4, pool=pool)
    labels, confidence = consistency.pseudo_labels(
        refined, views[0], prior,
        upper=threshold_upper, lower=threshold_lower, beta=beta, discount=discount,
    )  # fmt: skip
    loss = consistency.target_loss(
        upsample(model.apply(run.student, batch["student_view"]), size), labels, confidence, prior,
        focal_power=focal_power,
        confidence_weighting=confidence_weighting, confidence_images=confidence_images,
    )  # fmt: skip
    return {"loss": loss, "labelled": (labels != 255).mean(), "prior": prior}


OFTEN = {"teacher_every_steps": 3, "steps_per_epoch": 4, "teacher_momentum": 0.8}


class TestTeacher:
    def test_first_step_copies_the_student_and_resets_the_prior(self, run, step, batches):
        teacher = jax.tree.map(lambda x: x + 1, run.teacher)
        student = run.student
        odd = run.replace(teacher=teacher, class_prior=jnp.full(5, 0.7))
        after, metrics = step(odd, batches[0], **OFTEN)
        assert_trees_equal(after.teacher, student)
        assert metrics["teacher_distance"] == 0
        usual, _ = step(run, batches[0], **OFTEN)
        assert_trees_equal(after.class_prior, usual.class_prior)

    def test_follows_at_its_interval_counted_within_the_epoch(self, run, step, batches):
        followed = []
        for i in range(9):
            # As in training from a baseline, the running statistics of the student stay.
            before = run
            run, metrics = step(run, batches[i], **OFTEN)
            assert_trees_equal(run.batch_stats, before.batch_stats)
            if changed(run.teacher, before.teacher):
                followed.append(i)
                expected = jax.tree.map(
                    lambda old, new: 0.8 * old + 0.2 * new, before.teacher, before.student
                )
                assert_trees_equal(run.teacher, expected, rtol=1e-5)
            apart = jax.tree.map(
                lambda a, b: jnp.linalg.norm((a - b).ravel()), run.teacher, before.student
            )
            assert metrics["teacher_distance"] == pytest.approx(
                float(sum(jax.tree.leaves(apart))), rel=1e-5, abs=1e-7
            )
        # Every third step, and every fourth begins an epoch; at step 0 the two are alike.
        assert followed == [3, 4, 7, 8]

    def test_predicts_without_dropout_and_moves_with_statistics_too(self, run, step, batches):
        stats = jax.tree.map(lambda x: x + 1, run.batch_stats)
        run = run.replace(step=jnp.int32(4), batch_stats=stats)
        after, _ = step(run, batches[0], **OFTEN)
        expected = jax.tree.map(
            lambda old, new: 0.8 * old + 0.2 * new, run.teacher["batch_stats"], stats
        )
        assert_trees_equal(after.teacher["batch_stats"], expected, rtol=1e-5)


class TestTotalLoss:
    def test_target_only_is_training_on_sources_without_labels(self, model, run, step, batches):
        target_only = quickly_compiled(adapt(model, train_on_source=False))
        after, metrics = target_only(run, batches[0])
        assert "loss_source" not in metrics
        unlabelled = np.full_like(batches[0]["source_label"], 255)
        both, metrics = step(run, batches[0] | {"source_label": unlabelled})
        assert metrics["loss_source"] == 0
        assert_trees_equal(after.params, both.params, rtol=1e-5)
        assert changed(after.params, run.params)

    def test_target_loss_is_phased_in_linearly(self, model, run, step, batches):
        phased = quickly_compiled(adapt(model, phase_in_steps=4))
        for done, share in ((0, 0.25), (1, 0.5), (3, 1.0), (40, 1.0)):
            here = run.replace(step=jnp.int32(done))
            after, metrics = phased(here, batches[0])
            expected, plain = step(here, batches[0], target_weight=2.0 * share)
            # Logged without its weight.
            assert metrics["loss_target"] == pytest.approx(float(plain["loss_target"]), rel=1e-6)
            assert_trees_equal(after.params, expected.params, rtol=1e-5)
            if share < 1:
                unweighted, _ = step(here, batches[0])
                assert changed(after.params, unweighted.params)

    def test_nothing_flows_through_the_pseudo_labels(self, run, step, batches):
        # No labels, no gradient: only the decay of the weights is left.
        batch = batches[0] | {
            "padded": np.ones_like(batches[0]["padded"]),
            "source_label": np.full_like(batches[0]["source_label"], 255),
        }
        after, metrics = step(run, batch)
        assert metrics["loss_target"] == metrics["labelled"] == 0
        kernel = run.params["conv1"]["kernel"]
        np.testing.assert_allclose(
            after.params["conv1"]["kernel"], kernel * (1 - 1e-3 * 5e-4), rtol=1e-6
        )
        np.testing.assert_array_equal(
            after.params["classifier"]["bias"], run.params["classifier"]["bias"]
        )

    def test_adam_moves_every_bias_by_its_rate(self, tiny, model, batches):
        run = begin(tiny, "adam")
        after, _ = quickly_compiled(adapt(model, kind="adam"))(run, batches[0])
        moved = np.abs(after.params["classifier"]["bias"] - run.params["classifier"]["bias"])
        np.testing.assert_allclose(moved, 20 * 1e-3, rtol=1e-3)
        moved = np.abs(after.params["bn1"]["bias"] - run.params["bn1"]["bias"])
        np.testing.assert_allclose(moved, 2 * 1e-3, rtol=1e-3)

    def test_target_labels_are_scored_and_not_learnt(self, run, step, batches):
        labels = batches[0]["source_label"]
        after, metrics = step(run, batches[0] | {"target_label": labels})
        expected, plain = step(run, batches[0])
        assert metrics["loss_target_supervised"] > 0
        assert "loss_target_supervised" not in plain
        assert_trees_equal(after.params, expected.params, rtol=1e-6)


def with_keys(batch):
    """The batch with keys that switch dropout on, as the training gives them."""
    keys = jax.random.split(jax.random.key(3), 16)
    return batch | {"source_keys": keys[:8], "target_keys": keys[8:]}


def assert_close(ours, theirs):
    """Tensors of two states: equal to rounding, each as a whole."""
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        apart = np.linalg.norm((np.asarray(mine, float) - np.asarray(other, float)).ravel())
        assert apart <= 1e-5 * np.linalg.norm(np.asarray(other, float).ravel())


def two_steps(tiny, model, batches, **options):
    """The state after two adaptation steps, and their metrics."""
    step = quickly_compiled(adapt(model, confidence_weighting="batch", **options))
    log, run = [], begin(tiny)
    for batch in batches[:2]:
        run, metrics = step(run, with_keys(batch) | {"target_label": batch["source_label"]})
        log.append(metrics)
    return run, log


@pytest.fixture(scope="module")
def whole(tiny, model, batches):
    return two_steps(tiny, model, batches)


class TestParts:
    """The adaptation in parts does what it does in one."""

    @pytest.mark.parametrize("parts", [2, 8])
    def test_losses_and_updates(self, parts, whole, tiny, model, batches):
        run, log = two_steps(tiny, model, batches, accumulate=parts)
        assert set(log[0]) >= {"loss_source", "loss_target", "loss_target_supervised", "labelled"}
        assert 0 < log[0]["labelled"] < 1
        assert_trees_equal(log, whole[1], rtol=1e-5)
        assert_close(run, whole[0])
        assert changed(whole[0].params, begin(tiny).params)

    def test_on_two_devices(self, whole, tiny, model, batches):
        step = adapt(model, confidence_weighting="batch", accumulate=2, axis_name="devices")
        step = jax.pmap(
            step, "devices", in_axes=(None, 0), out_axes=None, devices=jax.local_devices()[:2]
        )
        batch = with_keys(batches[0]) | {"target_label": batches[0]["source_label"]}
        _, metrics = step(begin(tiny), tiny.split(batch, 2))
        assert_trees_equal(metrics, whole[1][0], rtol=1e-5)

    def test_parts_that_do_not_fit(self, model, run, batches):
        with pytest.raises(UserError, match=r"accumulate is 3: 8 source .* 1, 2, 4, 8"):
            adapt(model, accumulate=3)(run, batches[0])


# On a CPU XLA would find that activations are computed twice, and keep them after all.
kept_apart = partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_disable_hlo_passes": "cse_barrier_expander",
    },
)


class TestRemat:
    """Activations computed anew change nothing but the memory that a step needs."""

    def steps(self, name, batch):
        """What the step gives and the bytes that it needs, without and with remat."""
        small = {"num_classes": 5, "blocks": (3, 1, 0, 0), "widths": (2, 3, 4, 5), "stem": 4}
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(
            DeepLabV2ResNet(**small).init, jax.random.key(0), batch["source_image"]
        )
        initial = jax.tree.map(lambda leaf: rng.uniform(-0.5, 1, leaf.shape), shapes)
        initial["batch_stats"] = jax.tree.map(abs, initial["batch_stats"])
        initial = jax.tree.map(partial(jnp.asarray, dtype=jnp.float32), initial)
        for remat in (False, True):
            model = DeepLabV2ResNet(**small, frozen_norm=name == "adapt", remat=remat)
            optimiser = optim.create(1e-3)
            run = state.create(model, optimiser, seed=0, variables=initial)
            step = partial(steps.baseline_step, model=model, optimiser=optimiser)
            step = adapt(model, accumulate=2, pool="none") if name == "adapt" else step
            compiled = kept_apart(step).lower(run, batch).compile()
            yield compiled(run, batch), compiled.memory_analysis().temp_size_in_bytes

    @pytest.mark.parametrize("name", ["baseline", "adapt"])
    def test_steps(self, name, tiny):
        batch = tiny.batches(name, 4)[0]
        (without, plain), (ours, less) = self.steps(name, batch)
        assert_close(ours, without)
        assert ours[1]["skipped"] == 0
        assert less < 0.8 * plain


@pytest.fixture(scope="module")
def baseline(tiny):
    model, optimiser = tiny.TinyNetwork(), optim.create(1e-3)
    return quickly_compiled(partial(steps.baseline_step, model=model, optimiser=optimiser))


@pytest.fixture
def batch(tiny):
    return tiny.batches("baseline", 1)[0]


class TestBaseline:
    def test_target_images_move_nothing_but_the_statistics(self, run, baseline, batch):
        after, _ = baseline(run, batch)
        other, _ = baseline(run, batch | {"target_image": 2 * batch["target_image"]})
        assert_trees_equal(after.params, other.params)
        assert_trees_equal(after.opt_state, other.opt_state)
        assert changed(after.batch_stats, other.batch_stats)
        assert_trees_equal(after.teacher, run.teacher)
        assert int(after.step) == 1

    def test_target_passes_through_the_updated_network(self, tiny, run, baseline, batch):
        after, metrics = baseline(run, batch | {"target_label": batch["source_label"]})
        again, _ = baseline(run, batch | {"target_image": batch["source_image"]})
        params, once = again.params, statistics(tiny, run, run.params, batch["source_image"])
        twice = steps.statistics_step(once, params, batch["target_image"], model=tiny.TinyNetwork())
        assert_trees_equal(after.batch_stats, twice, rtol=1e-5)
        assert metrics["loss_target"] > 0


def statistics(tiny, run, params, images):
    return steps.statistics_step(run.batch_stats, params, images, model=tiny.TinyNetwork())


class TestPrediction:
    def test_labels_and_confidence(self, tiny, model, run, batches):
        images = batches[0]["source_image"]
        labels, confidence = steps.predict_step(run.student, images, model=model)
        probs = jax.nn.softmax(upsample(model.apply(run.student, images), images.shape[1:3]))
        assert labels.dtype == jnp.int32
        np.testing.assert_array_equal(labels, probs.argmax(-1))
        np.testing.assert_allclose(confidence, probs.max(-1), rtol=1e-6)
        assert 0 < confidence.min() <= confidence.max() <= 1

    def test_at_another_size(self, model, run, batches):
        images = batches[0]["source_image"]
        labels, confidence = steps.predict_step(run.student, images, model=model, size=(30, 50))
        assert labels.shape == confidence.shape == (len(images), 30, 50)


def spoiled(batch, name, value=np.nan):
    """The batch with one bad number in one image."""
    images = np.array(batch[name])
    images[-1, 0, 0, 0] = value
    return batch | {name: images}


class TestSkipping:
    @pytest.mark.parametrize("name", ["source_image", "student_view", "teacher_view"])
    def test_adaptation_keeps_all_but_the_step(self, name, run, step, batches):
        run, _ = step(run, batches[0])
        # Not due: the teacher moves with earlier weights alone.
        after, metrics = step(run, spoiled(batches[1], name))
        assert metrics["skipped"] == 1 and int(after.step) == 2
        assert_trees_equal(after.replace(step=run.step), run)
        on, metrics = step(after, batches[2])
        assert metrics["skipped"] == 0 and changed(on.params, run.params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(on))

    def test_the_first_step_begins_teacher_and_prior_all_the_same(self, run, step, batches):
        odd = run.replace(
            teacher=jax.tree.map(lambda x: x + 1, run.teacher), class_prior=jnp.full(5, 0.7)
        )
        after, metrics = step(odd, spoiled(batches[0], "teacher_view"))
        assert metrics["skipped"] == 1
        assert_trees_equal(after.teacher, run.student)
        assert_trees_equal(after.class_prior, jnp.full(5, BETA))

    @pytest.mark.parametrize("name", ["source_image", "target_image"])
    def test_baseline_keeps_all_but_the_step(self, name, run, baseline, batch):
        after, metrics = baseline(run, spoiled(batch, name))
        assert metrics["skipped"] == 1 and int(after.step) == 1
        assert_trees_equal(after.replace(step=run.step), run)
        assert baseline(after, batch)[1]["skipped"] == 0

    def test_a_gradient_that_overflows_is_enough(self, run, step, batches):
        after, metrics = step(run, batches[0], target_weight=1e30)
        assert np.isfinite([float(value) for value in metrics.values()]).all()
        assert metrics["skipped"] == 1
        assert_trees_equal(after.params, run.params)

    def test_all_devices_skip_what_one_has_to(self, tiny, run):
        step, run = tiny.step_and_state("baseline", 4, data_parallel.AXIS)
        step, run = data_parallel.data_parallel(step), data_parallel.replicate(jax.device_get(run))
        before = data_parallel.fetch(run)
        bad = spoiled(tiny.batches("baseline", 4)[0], "source_image")  # on the last device alone
        after, metrics = step(run, tiny.split(bad, jax.device_count()))
        assert np.asarray(metrics["skipped"]).tolist() == [1] * jax.device_count()
        for leaf in jax.tree.leaves(after.params):
            shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
            assert all((shard == shards[0]).all() for shard in shards)
        assert_trees_equal(data_parallel.fetch(after.params), before.params)
