"""The method's functions on small inputs whose results are known by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.image import warp
from dasac_jax.method import consistency

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

BETA = 1e-3


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
