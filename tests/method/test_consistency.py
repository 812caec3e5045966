"""The method against the authors' recorded numbers, by hand, and over devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.image import warp
from dasac_jax.method import consistency
from dasac_jax.models import upsample

# Compiled, since calls one operation at a time take seconds.
warp_affine = jax.jit(warp.warp_affine)
warp_ones = jax.jit(warp.warp_ones, static_argnums=1)
align = jax.jit(consistency.align)
fuse_views = jax.jit(consistency.fuse_views, static_argnames=("group_size", "pool"))
update_class_prior = jax.jit(consistency.update_class_prior)
pseudo_labels = jax.jit(consistency.pseudo_labels, static_argnames="discount")
target_loss = jax.jit(
    consistency.target_loss, static_argnames=("confidence_weighting", "confidence_images")
)

SIZE = (64, 128)
BETA = 1e-3
# groups, views of a group, pooling, discount
CASES = {
    "a": (2, 4, "average", True),
    "no_discount": (1, 4, "average", False),
    "no_pool": (2, 2, "none", True),
    "minentropy": (2, 4, "minentropy", True),
    "discount": (2, 4, "average", True),
}


def relative(ours, golden):
    ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    assert ours.shape == golden.shape
    return np.linalg.norm(ours - golden) / np.linalg.norm(golden)


def drawn_windows(draws):
    """(G, T, 4) uniforms in [0, 1) -> offsets (G·T, 2), scales (G·T,), flips (G·T,)."""
    height, width = SIZE
    offsets = np.zeros((*draws.shape[:2], 2))
    scales = np.ones(draws.shape[:2])
    for group, view in np.ndindex(scales.shape):
        if view == 0:
            continue
        s = 0.5 + 0.49 * draws[group, view, 1]
        h, w = int(s * height), int(s * width)
        i = int(draws[group, view, 2] * (height - h + 1))
        j = int(draws[group, view, 3] * (width - w + 1))
        scales[group, view] = s
        offsets[group, view] = i + h / 2 - height / 2, j + w / 2 - width / 2
    flips = np.where(draws[..., 0] > 0.5, -1, 1)
    return offsets.reshape(-1, 2), scales.ravel(), flips.ravel()


@partial(jax.jit, static_argnames=("views", "pool", "discount"))
def method(logits, padded, prior, windows, student, *, views, pool, discount):
    """One target step's arithmetic, from the teacher's coarse logits to the loss's gradient."""
    probs = jax.nn.softmax(upsample(logits, SIZE))
    there, back = consistency.view_matrices(*windows, SIZE)
    prior = consistency.update_class_prior(prior, probs, momentum=0.99, beta=BETA)
    aligned = consistency.align(probs, padded, there)
    refined = consistency.fuse_views(probs, padded, there, back, group_size=views, pool=pool)
    labels, confidence = consistency.pseudo_labels(
        refined, padded, prior, lower=0.2, beta=BETA, discount=discount
    )
    ours = {"affine": there, "affine_inv": back, "class_prior": prior, "aligned": aligned}
    ours |= {"refined": refined, "labels": labels, "confidence": confidence}
    for weighting in ("pixel", "batch"):
        loss = partial(
            consistency.target_loss,
            focal_power=3,
            confidence_weighting="none" if pool == "none" else weighting,
            confidence_images=len(probs),
        )
        loss, gradient = jax.value_and_grad(loss)(student, labels, confidence, prior)
        ours |= {f"loss_{weighting}": loss, f"grad_{weighting}": gradient}
    return ours


@pytest.fixture(scope="module", params=CASES)
def case(request, golden, recipe):
    """Everything the method computes in one recorded case, and the record."""
    name = request.param
    groups, views, pool, discount = CASES[name]
    count, coarse = groups * views, (SIZE[0] // 8 + 1, SIZE[1] // 8 + 1)
    logits = recipe.uniform(f"{name}/teacher_logits", (count, *coarse, 19), -6, 6)
    student = recipe.uniform(f"{name}/student_logits", (count, *SIZE, 19), -3, 3)
    padded = recipe.labels(f"{name}/pad", count, *SIZE, classes=12) == 0
    prior = np.full(19, BETA, np.float32)
    if name == "discount":
        prior = np.linspace(0, 1.5e-3, 19, dtype=np.float32)
        prior[7] = BETA
    windows = drawn_windows(recipe.uniform(f"{name}/crops", (groups, views, 4), 0, 1))

    inputs = logits, padded, prior, windows, student
    ours = method(*inputs, views=views, pool=pool, discount=discount)
    return ours, golden(f"consistency_{name}")


class TestAgainstTheAuthorsNumbers:
    def test_view_matrices(self, case):
        ours, golden = case
        assert relative(ours["affine"], golden["affine"]) < 1e-6
        assert relative(ours["affine_inv"], golden["affine_inv"]) < 1e-6

    def test_class_prior(self, case):
        ours, golden = case
        assert relative(ours["class_prior"], golden["class_prior"]) < 1e-6

    def test_aligned_and_refined(self, case):
        ours, golden = case
        recorded = {"aligned", "refined"} & golden.keys()  # without pooling nothing is aligned
        assert "refined" in recorded
        for name in recorded:
            assert relative(ours[name][:, ::4, ::4], golden[name]) < 1e-5
        assert relative(ours["refined"].sum((1, 2)), golden["refined_sum"]) < 1e-5

    def test_pseudo_labels(self, case):
        ours, golden = case
        assert relative(ours["confidence"], golden["confidence"]) < 1e-5
        assert np.mean(ours["labels"] != golden["labels"]) <= 1e-4
        assert 0.05 < np.mean(golden["labels"] != 255) < 0.3

    @pytest.mark.parametrize("weighting", ["pixel", "batch"])
    def test_target_loss_and_its_gradient(self, case, weighting):
        ours, golden = case
        loss = golden[f"loss_{weighting}"][0]
        assert abs(ours[f"loss_{weighting}"] - loss) <= 1e-6 * loss
        gradient = ours[f"grad_{weighting}"][:, ::8, ::8]
        assert relative(gradient, golden[f"grad_{weighting}"]) < 1e-5


def identity(count):
    return consistency.view_matrices(np.zeros((count, 2)), np.ones(count), np.ones(count), (2, 2))


def constant(*rows):
    """One view of 2 x 2 pixels per row of class probabilities."""
    probs = np.asarray(rows, np.float32)
    return np.broadcast_to(probs[:, None, None], (len(rows), 2, 2, probs.shape[1]))


class TestGeometry:
    def test_matrices_are_inverses(self):
        random = np.random.default_rng(0)
        there, back = consistency.view_matrices(
            random.uniform(-9, 9, (6, 2)),
            random.uniform(0.5, 2, 6),
            random.choice([-1, 1], 6),
            (24, 40),
        )
        last = np.broadcast_to(np.array([[[0, 0, 1]]], np.float32), (6, 1, 3))
        product = np.concatenate([there, last], 1) @ np.concatenate([back, last], 1)
        np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), (6, 3, 3)), atol=1e-6)

    def test_window_of_the_flipped_frame(self):
        """The upper right quarter of the flipped frame, enlarged twice."""
        there, back = consistency.view_matrices([[-2.0, 4.0]], [0.5], [-1.0], (8, 16))
        frame = np.zeros((1, 8, 16, 1), np.float32)
        frame[0, :4, :8] = 1  # what the window shows
        np.testing.assert_allclose(warp_affine(frame, back)[0, 1:-1, 1:-1], 1, atol=1e-6)
        aligned = align(np.ones_like(frame), np.zeros((1, 8, 16), bool), there)
        np.testing.assert_allclose(aligned, frame, atol=1e-6)

    def test_zoomed_out_view(self):
        """A view at s = 2 shows the whole frame in its middle; its border shows nothing."""
        size = (16, 24)
        there, back = consistency.view_matrices([[0.0, 0.0]], [2.0], [1.0], size)
        down, across = np.mgrid[0.2:0.8:16j, 0.2:0.8:24j]
        frame = np.stack([down, across], -1)[None].astype(np.float32)
        frame /= frame.sum(-1, keepdims=True)
        padded = warp_ones(back, size) < 1
        assert padded[0, :4].all() and not padded[0, 4:12, 6:18].any()
        view = warp_affine(frame, back)
        aligned = align(view, padded, there)
        np.testing.assert_allclose(aligned[:, 1:-1, 1:-1], frame[:, 1:-1, 1:-1], atol=0.02)
        # Ones warped with the inverse cover the middle half of the frame, a quarter of the view.
        refined = fuse_views(view, padded, there, back, group_size=1)
        seen = refined[:, 6:10, 9:15]
        np.testing.assert_allclose(seen[:, 1:-1, 1:-1], view[:, 7:9, 10:14], atol=0.02)
        assert float(refined.sum()) == pytest.approx(float(seen.sum()))


class TestPooling:
    def test_average_is_renormalised_over_the_views_that_see_the_pixel(self):
        probs = constant([0.8, 0.2], [0.4, 0.6])
        padded = np.zeros((2, 2, 2), bool)
        padded[1, 0, 0] = True
        refined = fuse_views(probs, padded, *identity(2), group_size=2)
        np.testing.assert_allclose(refined[:, 1, 1], [[0.6, 0.4]] * 2, rtol=1e-6)
        np.testing.assert_allclose(refined[:, 0, 0], [[0.8, 0.2]] * 2, rtol=1e-6)

    def test_minentropy_takes_the_most_certain_view(self):
        probs = constant([0.6, 0.4], [0.1, 0.9], [0.5, 0.5])
        padded = np.zeros((3, 2, 2), bool)
        padded[1, 0, 0] = True
        refined = fuse_views(probs, padded, *identity(3), group_size=3, pool="minentropy")
        np.testing.assert_allclose(refined[:, 1, 1], [[0.1, 0.9]] * 3, rtol=1e-6)
        np.testing.assert_allclose(refined[:, 0, 0], [[0.6, 0.4]] * 3, rtol=1e-6)

    def test_none_keeps_each_view(self):
        probs = constant([0.6, 0.4], [0.1, 0.9], [0.5, 0.5])
        padded = np.zeros((3, 2, 2), bool)
        padded[1, 0, 0] = True
        zoomed = consistency.view_matrices(np.ones((3, 2)), np.full(3, 0.6), -np.ones(3), (2, 2))
        refined = fuse_views(probs, padded, *zoomed, group_size=4, pool="none")
        np.testing.assert_array_equal(refined, np.where(padded[..., None], 0, probs))

    def test_groups_do_not_mix(self):
        probs = constant([1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0])
        padded = np.zeros((4, 2, 2), bool)
        refined = fuse_views(probs, padded, *identity(4), group_size=2)
        np.testing.assert_allclose(refined, probs, atol=1e-6)

    @pytest.mark.parametrize("pool", ["average", "minentropy"])
    def test_pixels_seen_by_no_view_are_empty_and_finite(self, pool):
        padded = np.ones((2, 2, 2), bool)
        refined = fuse_views(
            constant([0.8, 0.2], [0.4, 0.6]), padded, *identity(2), group_size=2, pool=pool
        )
        np.testing.assert_array_equal(refined, 0)
        prior = jnp.full(2, BETA)
        labels, confidence = pseudo_labels(refined, padded, prior, lower=0.2, beta=BETA)
        assert (labels == 255).all()
        loss = jax.value_and_grad(partial(consistency.target_loss, focal_power=3))
        logits = jnp.full((2, 2, 2, 2), 1e4)
        loss, gradient = jax.jit(loss)(logits, labels, confidence, prior)
        assert loss == 0
        np.testing.assert_array_equal(gradient, 0)

    def test_refuses_unknown_pooling(self):
        with pytest.raises(UserError, match="pool is 'max'; choose one of average, minentropy"):
            fuse_views(
                constant([1.0, 0.0]),
                np.zeros((1, 2, 2), bool),
                *identity(1),
                group_size=1,
                pool="max",
            )


class TestClassPrior:
    def update(self, prior, *rows):
        return update_class_prior(
            jnp.asarray(prior, jnp.float32), constant(*rows), momentum=0.9, beta=BETA
        )

    def test_first_seen_class_starts_at_its_share(self):
        updated = self.update([BETA, BETA, BETA], [0.5, 0.5, 0.0], [0.1, 0.9, 0.0])
        np.testing.assert_allclose(updated, [0.3, 0.7, 0.9 * BETA], rtol=1e-6)

    def test_seen_class_moves_slowly(self):
        updated = self.update([0.2, 2 * BETA], [0.5, 0.5])
        np.testing.assert_allclose(updated, [0.23, 0.05 + 1.8 * BETA], rtol=1e-6)

    def test_mean_over_many_pixels_stays_accurate(self):
        probs = np.random.default_rng(0).random((2, 512, 512, 3), np.float32)
        updated = update_class_prior(jnp.zeros(3), probs, momentum=0.0, beta=BETA)
        np.testing.assert_allclose(updated, probs.mean((0, 1, 2), dtype=np.float64), rtol=1e-6)


class TestPseudoLabels:
    prior = jnp.full(3, 0.5)
    # One view of 2 x 2 pixels; class 0 wins three of them, class 1 the last.
    probs = np.array([[0.9, 0.1, 0], [0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], np.float32)

    def labels(self, padded=(0, 0, 0, 0), probs=probs, prior=prior, **options):
        options = {"lower": 0.2, "beta": BETA} | options
        padded = np.array(padded, bool).reshape(1, 2, 2)
        labels, confidence = pseudo_labels(probs.reshape(1, 2, 2, 3), padded, prior, **options)
        np.testing.assert_array_equal(confidence.ravel(), probs.max(-1))
        return labels.ravel().tolist()

    def test_threshold_is_a_share_of_each_class_peak(self):
        assert self.labels() == [0, 0, 255, 1]
        assert self.labels(upper=0.65) == [0, 0, 0, 1]

    def test_lower_bound(self):
        assert self.labels(lower=0.65) == [0, 0, 255, 255]

    def test_a_pixel_at_the_threshold_is_dropped(self):
        assert self.labels(upper=1.0, discount=False) == [255] * 4

    def test_padded_pixels_are_ignored_but_count_towards_the_peak(self):
        assert self.labels(padded=(1, 0, 0, 1)) == [255, 0, 255, 255]

    def test_discount_favours_rare_classes(self):
        rare = jnp.array([BETA, 0.5, 0.5])  # 1 - 1/e: threshold 0.43 instead of 0.68
        assert self.labels(prior=rare) == [0, 0, 0, 1]
        assert self.labels(prior=rare, discount=False) == [0, 0, 255, 1]

    def test_peaks_are_per_view(self):
        probs = np.stack([self.probs, self.probs * 0.6]).reshape(2, 2, 2, 3)
        labels, _ = pseudo_labels(
            probs, np.zeros((2, 2, 2), bool), self.prior, lower=0.2, beta=BETA
        )
        np.testing.assert_array_equal(labels[0], labels[1])


class TestTargetLoss:
    prior = jnp.array([0.5, -0.5, 0.0])
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.5, 0.3]], np.float32))[:, None, None]
    confidence = np.array([0.8, 0.4], np.float32)[:, None, None]

    def loss(self, labels, weighting, images=None, power=3):
        labels = np.array(labels, np.int32)[:, None, None]
        loss = target_loss(
            self.logits,
            labels,
            self.confidence,
            self.prior,
            focal_power=power,
            confidence_weighting=weighting,
            confidence_images=images,
        )
        assert loss.dtype == jnp.float32
        return float(loss)

    def test_by_hand(self):
        first, second = -np.log(0.5), -np.log(0.5)
        assert self.loss([0, 1], "none") == pytest.approx((first / 8 + second) / 2)
        assert self.loss([0, 1], "none", power=0) == pytest.approx((first + second) / 2)
        assert self.loss([0, 1], "pixel") == pytest.approx((0.8 * first / 8 + 0.4 * second) / 2)
        assert self.loss([0, 1], "batch") == pytest.approx(0.6 * (first / 8 + second) / 2)
        assert self.loss([0, 1], "batch", 1) == pytest.approx(self.loss([0, 1], "pixel"))

    def test_ignored_pixels_count_in_the_mean(self):
        assert self.loss([255, 1], "none") == pytest.approx(-np.log(0.5) / 2)
        assert self.loss([255, 255], "pixel") == 0

    def test_bfloat16_logits_are_summed_in_float32(self):
        logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 64, 3)), jnp.bfloat16)
        arguments = np.ones((1, 64, 64), np.int32), np.ones((1, 64, 64), np.float32), self.prior
        loss = target_loss(logits, *arguments, focal_power=3)
        assert loss.dtype == jnp.float32
        exact = target_loss(logits.astype(jnp.float32), *arguments, focal_power=3)
        assert float(loss) == pytest.approx(float(exact), rel=1e-6)

    def test_refuses_unknown_weighting(self):
        with pytest.raises(UserError, match="choose pixel, batch or none"):
            self.loss([0, 1], "mean")


def random_views(count=8, size=(16, 24), classes=5):
    random = np.random.default_rng(3)
    logits = random.normal(scale=3, size=(count, *size, classes))
    probs = jax.nn.softmax(jnp.asarray(logits, jnp.float32))
    padded = random.random((count, *size)) < 0.1
    windows = random.uniform(-4, 4, (count, 2)), random.uniform(0.5, 1, count)
    matrices = consistency.view_matrices(*windows, random.choice([-1, 1], count), size)
    return probs, padded, *matrices


def over_devices(devices, function, *views):
    """Runs `function` with the views dealt to `devices`; its outputs stacked over them."""
    shards = [np.reshape(x, (devices, -1, *x.shape[1:])) for x in views]
    return jax.pmap(function, axis_name="batch", devices=jax.devices()[:devices])(*shards)


CONFIDENCE_IMAGES = (1, 2, 4, 8, None)
PRIOR = jnp.array([BETA, 0.3, 0.1, BETA, 0.2])


def spread_method(probs, padded, there, back, logits, labels, *, axis_name=None):
    """Everything that looks beyond its own device."""
    fuse = partial(consistency.fuse_views, group_size=4, axis_name=axis_name)
    loss = partial(consistency.target_loss, focal_power=3, confidence_weighting="batch")
    update = partial(consistency.update_class_prior, momentum=0.99, beta=BETA)
    loss_inputs = logits, labels, probs.max(-1), PRIOR
    return {
        "average": fuse(probs, padded, there, back),
        "minentropy": fuse(probs, padded, there, back, pool="minentropy"),
        "prior": update(PRIOR, probs, axis_name=axis_name),
        "losses": [
            loss(*loss_inputs, confidence_images=images, axis_name=axis_name)
            for images in CONFIDENCE_IMAGES
        ],
    }


@pytest.fixture(scope="module")
def spread_inputs():
    views = random_views()
    random = np.random.default_rng(4)
    logits = random.normal(size=views[0].shape).astype(np.float32)
    labels = random.choice([0, 1, 2, 3, 4, 255], views[1].shape).astype(np.int32)
    return *views, logits, labels


@pytest.fixture(scope="module")
def alone(spread_inputs):
    return jax.jit(spread_method)(*spread_inputs)


class TestDevices:
    @pytest.mark.parametrize("devices", [1, 2, 4, 8])
    def test_results_do_not_depend_on_the_device_count(self, alone, spread_inputs, devices):
        spread = over_devices(devices, partial(spread_method, axis_name="batch"), *spread_inputs)
        for pool in ("average", "minentropy"):
            assert relative(np.reshape(spread[pool], alone[pool].shape), alone[pool]) < 1e-5
        for prior in spread["prior"]:
            assert relative(prior, alone["prior"]) < 1e-5
        losses = [loss.mean() for loss in spread["losses"]]
        np.testing.assert_allclose(losses, alone["losses"], rtol=1e-5)
        assert len({round(float(loss), 4) for loss in losses}) == len(CONFIDENCE_IMAGES) - 1

    def test_without_pooling_any_views_fit_any_devices(self):
        views = random_views(6)
        fuse = partial(consistency.fuse_views, group_size=4, pool="none", axis_name="batch")
        spread = over_devices(3, fuse, *views).reshape(views[0].shape)
        np.testing.assert_array_equal(spread, np.where(views[1][..., None], 0, views[0]))

    @pytest.mark.parametrize(
        ("views", "devices", "message"),
        [
            (12, 2, r"does not fit 6 views on each of 2 devices.*that work: 1, 3, 6, 12\b"),
            (6, 2, "6 views are no multiple of 4"),
            (2, 1, "2 views are no multiple of 4"),
        ],
    )
    def test_refuses_groups_that_do_not_fit_the_devices(self, views, devices, message):
        fuse = partial(consistency.fuse_views, group_size=4, axis_name="batch")
        with pytest.raises(UserError, match=message):
            over_devices(devices, fuse, *random_views(views))

    @pytest.mark.parametrize("images", [0, 3, 16])
    def test_refuses_confidence_images_that_do_not_fit(self, images):
        with pytest.raises(UserError, match=f"confidence_images = {images} does not fit 8 views"):
            target_loss(
                np.zeros((8, 2, 2, 3), np.float32),
                np.zeros((8, 2, 2), np.int32),
                np.ones((8, 2, 2), np.float32),
                jnp.zeros(3),
                focal_power=3,
                confidence_weighting="batch",
                confidence_images=images,
            )
