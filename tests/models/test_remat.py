"""Networks whose activations are computed anew for the gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.models import ARCHITECTURES, create_model, has_batch_norm
from dasac_jax.models.vgg import VGGFeatures


@pytest.mark.parametrize(
    "arch", sorted(set(filter(has_batch_norm, ARCHITECTURES)) - {"deeplabv2_resnet101"})
)
def test_variables_keep_their_names_and_less_is_kept(arch):
    images = jax.ShapeDtypeStruct((2, 64, 128, 3), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    variables, kept = [], []
    for remat in (False, True):
        model = create_model(arch, remat=remat)
        shapes = jax.eval_shape(model.init, jax.random.key(0), images)

        def backward(shapes, images, model=model):
            def loss(params):
                variables = {"params": params, "batch_stats": shapes["batch_stats"]}
                logits, _ = model.apply(
                    variables, images, True, dropout_keys=keys, mutable=["batch_stats"]
                )
                return logits.sum()

            return jax.vjp(loss, shapes["params"])[1]

        variables.append(jax.tree.map(lambda leaf: leaf.shape, shapes))
        residuals = jax.tree.leaves(jax.eval_shape(backward, shapes, images))
        kept.append(sum(leaf.size for leaf in residuals))
    assert variables[0] == variables[1]
    weights = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert kept[1] - weights < 0.5 * (kept[0] - weights)


def test_a_run_of_layers_has_the_same_gradient():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2, 16, 16, 3)), jnp.float32)
    layers = partial(VGGFeatures, "4 5 P D6 F7")
    shapes = jax.eval_shape(lambda: layers().init(jax.random.key(0), images, False))
    values = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    results = []
    for model in (layers(), layers(remat=True)):

        def loss(params, model=model):
            out, updated = model.apply(
                {"params": params, "batch_stats": values["batch_stats"]},
                images, False, mutable=["batch_stats"],
            )  # fmt: skip
            return jnp.square(out).mean(), updated["batch_stats"]

        options = {"xla_disable_hlo_passes": "cse_barrier_expander"}  # or it would all be kept
        gradient = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=options)
        results.append(gradient(values["params"]))
    ours, theirs = (jax.tree.leaves(result) for result in results)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in theirs if leaf.ndim == 4)
