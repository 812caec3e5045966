"""The baseline's batches: crops, padding, and colour jitter of both domains."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.image import transforms, views
from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD, source_statistics
from dasac_jax.image.view_parameters import draw_jittered_crop

SIZE = (32, 64)
MEAN, STD = source_statistics("gta5")


@pytest.fixture(scope="module")
def make_baseline():
    settings = {
        "size": SIZE, "scale": (0.5, 2.0), "jitter": 0.4, "source_mean": MEAN, "source_std": STD
    }  # fmt: skip
    return jax.jit(partial(views.baseline_views, **settings))


@pytest.fixture(scope="module")
def raw(source_batch, target_batch):
    target = {
        "target_image": target_batch(16)["target_image"],
        "target_item": np.arange(16, dtype=np.int32),
    }
    return {**source_batch(16), **target}


def test_baseline_views(make_baseline, raw):
    key = jax.random.key(7)
    batch = make_baseline(key, raw)
    assert {name: value.shape for name, value in batch.items()} == {
        "source_image": (16, *SIZE, 3),
        "source_label": (16, *SIZE),
        "target_image": (16, *SIZE, 3),
    }
    assert batch["source_label"].dtype == jnp.int32
    outside = np.array(batch["source_label"]) == 255
    assert 0 < outside.mean() < 0.5
    assert (np.array(batch["source_image"])[outside] == 0).all()

    turned = make_baseline(key, jax.tree.map(lambda x: x[::-1], raw))
    for name, value in turned.items():
        np.testing.assert_allclose(value[::-1], batch[name], atol=2e-5, err_msg=name)
    other = make_baseline(jax.random.key(8), raw)
    assert np.abs(np.array(other["source_image"]) - np.array(batch["source_image"])).max() > 0.5


def test_baseline_jitters_the_crops_that_drew_it(make_baseline, raw):
    key = jax.random.key(0)
    batch = make_baseline(key, raw)
    settings = {"size": SIZE, "scale": (0.5, 2.0), "strength": 0.4, "hue": 0.4}

    @jax.jit
    def plain_crop(image, number, item):
        item = views.item_key(key, number, item)
        window, jitter = draw_jittered_crop(item, image.shape[:2], **settings)
        return *transforms.crop_view(image, window, SIZE), jitter.apply

    for name, number, mean, std in (
        ("source", views.SOURCE, MEAN, STD),
        ("target", views.TARGET, IMAGENET_MEAN, IMAGENET_STD),
    ):
        images, jittered = raw[f"{name}_image"], []
        for item in range(16):
            plain, inside, drawn = map(np.array, plain_crop(images[item], number, item))
            made = np.array(batch[f"{name}_image"][item]) * std + mean
            changed = np.abs(made - plain)[inside].max() > 1e-3
            assert changed == drawn
            jittered.append(changed)
        assert 3 <= sum(jittered) <= 13
