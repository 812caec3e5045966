"""Scores of networks whose predictions are known beforehand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dasac_jax.errors import UserError
from dasac_jax.evaluation import scoring
from dasac_jax.image.normalise import normalise
from dasac_jax.models.layers import BatchNorm
from dasac_jax.runtime import data_parallel

CLASSES = 3


class ReadsRed(nn.Module):
    """Predicts class k where the red channel is 100 k; `shift` classes further on."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, x, train=False):
        shift = self.param("shift", nn.initializers.zeros, ())
        codes = normalise(jnp.arange(CLASSES)[:, None] * jnp.full((1, 3), 100.0))[:, 0]
        distance = jnp.abs(x[..., :1] - codes)
        return -10 * jnp.roll(distance, shift.astype(int), axis=-1)


class Scales(nn.Module):
    """Logits that are the image's colours times a factor."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, x, train=False):
        return x * self.param("factor", nn.initializers.ones, ()) * 1e3


MODEL = ReadsRed()
RIGHT = {"params": {"shift": jnp.zeros(())}}
SHIFTED = {"params": {"shift": jnp.ones(())}}
HUGE = {"params": {"factor": jnp.full((), 3e38)}}


class Pairs:
    """Pairs in memory: predicted classes as red, and the labels."""

    def __init__(self, predicted, labels):
        self.predicted, self.labels = np.asarray(predicted), np.asarray(labels, np.uint8)
        self.root, self.name = "memory", "pairs"
        self.pairs = [(str(index), None) for index in range(len(labels))]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        red = (100 * self.predicted[index]).astype(np.uint8)
        image = np.stack([red, np.full_like(red, index), np.zeros_like(red)], axis=-1)
        return {"image": image, "label": self.labels[index], "name": str(index)}


@pytest.fixture(autouse=True)
def explicit_transfers():
    """Weights are sent to the devices once, not behind one's back with every batch."""
    with jax.transfer_guard("disallow"):
        yield


def random_pairs(count, size, seed=0):
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, CLASSES, (count, *size))
    labels = rng.integers(0, CLASSES, (count, *size))
    return Pairs(predicted, np.where(rng.random(labels.shape) < 0.2, 255, labels))


def counted(labels, predictions):
    """Pixel by pixel."""
    counts = np.zeros((CLASSES, CLASSES), int)
    for truth, prediction in zip(np.ravel(labels), np.ravel(predictions), strict=True):
        if truth != 255:
            counts[truth, prediction] += 1
    return counts


def test_confusion_worked_out_by_hand():
    pairs = Pairs([[[0, 1], [2, 2]]], [[[0, 1], [1, 255]]])
    counts, kept = scoring.confusion(scoring.scorer(MODEL), RIGHT, pairs, batch=1)
    assert counts.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]] and kept == []
    counts, _ = scoring.confusion(scoring.scorer(MODEL), SHIFTED, pairs, batch=1)
    assert counts.tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert counts.dtype == np.int64


@pytest.mark.parametrize(("count", "batch"), [(8, 8), (5, 8), (11, 4), (17, 9), (1, 1)])
def test_every_image_counts_once_whatever_the_batch(count, batch):
    # Eight devices: batches are rounded up to a multiple, the last one is filled up.
    pairs = random_pairs(count, (3, 4))
    counts, _ = scoring.confusion(scoring.scorer(MODEL), RIGHT, pairs, batch=batch)
    np.testing.assert_array_equal(counts, counted(pairs.labels, pairs.predicted))


def test_what_is_kept_are_the_first_images_with_their_labels_and_predictions():
    pairs = random_pairs(11, (3, 4))
    _, kept = scoring.confusion(scoring.scorer(MODEL), SHIFTED, pairs, batch=8, keep=10)
    assert len(kept) == 10
    for index, (image, labels, predictions) in enumerate(kept):
        np.testing.assert_array_equal(image, pairs[index]["image"])
        np.testing.assert_array_equal(labels, pairs.labels[index])
        np.testing.assert_array_equal(predictions, (pairs.predicted[index] + 1) % CLASSES)
    _, kept = scoring.confusion(scoring.scorer(MODEL), RIGHT, pairs, batch=8, keep=99)
    assert len(kept) == 11  # and none of those that fill up


@pytest.mark.parametrize(("size", "new"), [((6, 8), (3, 4)), ((7, 9), (4, 5)), ((3, 5), (4, 7))])
def test_resize_scores_nearest_labels_and_whole_valued_images(size, new):
    pairs = random_pairs(3, size)
    score = scoring.scorer(MODEL, mode=scoring.RESIZE, size=new)
    counts, kept = scoring.confusion(score, RIGHT, pairs, batch=8, keep=3)
    total = 0
    for index, (image, labels, predictions) in enumerate(kept):
        pair = pairs[index]
        nearest = Image.fromarray(pair["label"]).resize(new[::-1], Image.Resampling.NEAREST)
        np.testing.assert_array_equal(labels, np.asarray(nearest))
        bilinear = Image.fromarray(pair["image"]).resize(new[::-1], Image.Resampling.BILINEAR)
        assert image.shape == (*new, 3) and np.abs(image - np.asarray(bilinear, float)).max() <= 1
        np.testing.assert_array_equal(image, np.round(image))
        total = total + counted(labels, predictions)
    np.testing.assert_array_equal(counts, total)


def test_centre_scores_the_middle():
    pairs = random_pairs(3, (6, 9))
    score = scoring.scorer(MODEL, mode=scoring.CENTRE, size=(2, 4))
    counts, kept = scoring.confusion(score, RIGHT, pairs, batch=8, keep=1)
    middle = np.s_[:, 2:4, 2:6]
    np.testing.assert_array_equal(counts, counted(pairs.labels[middle], pairs.predicted[middle]))
    np.testing.assert_array_equal(kept[0][0], pairs[0]["image"][2:4, 2:6])
    # What is smaller than the crop is taken whole.
    score = scoring.scorer(MODEL, mode=scoring.CENTRE, size=(20, 4))
    counts, _ = scoring.confusion(score, RIGHT, pairs, batch=8)
    middle = np.s_[:, :, 2:6]
    np.testing.assert_array_equal(counts, counted(pairs.labels[middle], pairs.predicted[middle]))


def noting(function, seen):
    """`function(variables, batch)`, which notes the variables of each call in `seen`."""

    def call(variables, batch):
        seen.append(jax.tree.leaves(variables))
        return function(variables, batch)

    return call


@pytest.mark.parametrize("given", ["numpy", "replicated"])
def test_weights_are_sent_once_for_all_batches(given):
    variables = jax.tree.map(np.asarray, SHIFTED)
    if given == "replicated":
        variables = data_parallel.replicate(variables)
    pairs, seen = random_pairs(24, (3, 4)), []
    scoring.confusion(noting(scoring.scorer(MODEL), seen), variables, pairs, batch=8)
    predict = noting(scoring.predictor(MODEL), seen)
    list(scoring.class_counts(predict, variables, pairs, CLASSES, batch=8))
    assert len(seen) == 6
    for calls in (seen[:3], seen[3:]):
        (first,) = calls[0]
        assert first.is_fully_replicated and len(first.sharding.device_set) == 8
        assert all(leaf is first for leaves in calls for leaf in leaves)
    if given == "replicated":  # then even the first time nothing is copied
        ours, theirs = (
            [shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards]
            for leaf in (seen[0][0], variables["params"]["shift"])
        )
        assert ours == theirs


@pytest.mark.parametrize(("count", "batch"), [(8, 8), (11, 3)])
def test_class_counts_are_those_of_the_predictions(count, batch):
    pairs = random_pairs(count, (3, 4))
    predict = scoring.predictor(MODEL)
    found = list(scoring.class_counts(predict, SHIFTED, pairs, CLASSES + 1, batch=batch))
    size = -(-batch // 8) * 8  # as many for each of the 8 devices
    assert [len(rows) for rows in found] == [min(size, count - i) for i in range(0, count, size)]
    expected = [
        np.bincount((image.ravel() + 1) % CLASSES, minlength=CLASSES + 1)
        for image in pairs.predicted
    ]
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_predictor_gives_labels_and_confidence_by_device():
    images = np.stack([random_pairs(16, (3, 4))[i]["image"] for i in range(16)])
    variables = data_parallel.replicate_locally(RIGHT)
    batch = data_parallel.to_devices(images.reshape(8, 2, 3, 4, 3))
    labels, confidence = jax.device_get(scoring.predictor(MODEL)(variables, batch))
    assert labels.shape == confidence.shape == (8, 2, 3, 4)
    np.testing.assert_array_equal(np.asarray(labels).reshape(16, 3, 4), images[..., 0] // 100)
    assert (np.asarray(confidence) > 1 / CLASSES).all() and (np.asarray(confidence) <= 1).all()


class Normed(nn.Module):
    """One batch norm, after a weight that scales what it sees."""

    @nn.compact
    def __call__(self, x, train=False):
        scale = self.param("scale", nn.initializers.constant(2.0), ())
        norm = BatchNorm(x.shape[-1], name="norm")
        return norm(scale * x) if train else norm.affine()


def test_source_statistics_become_the_sources_and_leave_the_weights():
    rng = np.random.default_rng(0)
    images = rng.normal(3.0, 2.0, (4, 6, 6, 3)).astype(np.float32)
    model = Normed()
    with jax.transfer_guard("allow"):
        start = model.init({"params": jax.random.key(0)}, images)
    given = jax.device_put(images)
    result = scoring.source_statistics(model, start, [given])
    mean, var = images.mean((0, 1, 2)), images.var((0, 1, 2), ddof=1)
    stats = result["batch_stats"]["norm"]
    np.testing.assert_allclose(stats["mean"], 0.1 * 2 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * 4 * var, rtol=1e-5)

    result = scoring.source_statistics(model, start, iter([given] * 120))
    assert result["params"] is start["params"]
    stats = result["batch_stats"]["norm"]
    np.testing.assert_allclose(stats["mean"], 2 * mean, rtol=1e-4)
    np.testing.assert_allclose(stats["var"], 4 * var, rtol=1e-4)
    assert np.asarray(start["batch_stats"]["norm"]["mean"]).tolist() == [0, 0, 0]


def test_sums_exceed_what_a_device_counts_in():
    """500 images of 2 megapixels come near 2^31 of a kind; sums are 64-bit."""
    most = np.full((8, CLASSES, CLASSES), 2**31 - 1, np.int32)
    pairs = random_pairs(24, (3, 4))
    counts, _ = scoring.confusion(lambda *_: (most, None), RIGHT, pairs, batch=8)
    assert (counts == 3 * 8 * (2**31 - 1)).all()


def test_results_that_are_not_finite_are_no_score():
    """A weight that is finite, and still too large to compute with."""
    pairs = random_pairs(9, (3, 4))
    with pytest.raises(UserError, match=r"results for 0, or an image of the same batch"):
        scoring.confusion(scoring.scorer(Scales()), HUGE, pairs, batch=8)
    with pytest.raises(UserError, match="are not finite"):
        list(scoring.class_counts(scoring.predictor(Scales()), HUGE, pairs, CLASSES, batch=8))


def test_progress_counts_images_without_those_that_fill_up():
    told = []
    score = scoring.scorer(MODEL)
    scoring.confusion(score, RIGHT, random_pairs(11, (3, 4)), batch=8, update=told.append)
    assert told == [8, 11]
