"""Everything a run must not lose, in one pytree."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

from dasac_jax.method.settings import Settings


@struct.dataclass
class TrainState:
    """One logical copy, whatever the device count.

    params, batch_stats: the student. teacher: {"params", "batch_stats"}, its moving average.
    class_prior: (C,) float32, χ. step: int32, updates done in the present stage. seed: uint32.
    """

    params: Any
    batch_stats: Any
    teacher: dict[str, Any]
    class_prior: jax.Array
    opt_state: optax.OptState
    step: jax.Array
    seed: jax.Array

    @property
    def student(self) -> dict[str, Any]:
        """The student's variables, ready for `model.apply`."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def drawn(model: nn.Module, seed: int, given: dict[str, jax.Array] | None = None) -> dict[str, Any]:
    """The network's own initialisation: {"params", "batch_stats"}, the latter where it has any.

    given: {path such as params/layer1/conv1/kernel: array} of what is known already. Only the rest
    is drawn, with the same numbers as without it.
    """
    given = given or {}
    missing = _draw(jax.random.key(seed), model, frozenset(given))
    return unflatten_dict(missing | given, sep="/")


# A network is static, so that it is traced once for all states that are drawn or described of it.
@partial(jax.jit, static_argnums=(1, 2))
def _draw(key: jax.Array, model: nn.Module, left_out: frozenset[str]) -> dict[str, jax.Array]:
    """{path: array} of the network's own initialisation, but for the paths that are left out.

    XLA leaves out what does not lead to a result: the forward pass, and what is left out here.
    """
    images = jnp.zeros((1, 64, 64, 3))  # parameters do not depend on the image size
    own = flatten_dict(model.init(key, images), sep="/")
    return {path: leaf for path, leaf in own.items() if path not in left_out}


def create(
    model: nn.Module,
    optimiser: optax.GradientTransformation,
    *,
    seed: int,
    beta: float = Settings.beta,
    variables: dict[str, Any] | None = None,
) -> TrainState:
    """A state at step 0; the teacher is a copy of the student and the class prior is β.

    variables: {"params", "batch_stats"} to start from; without them the network's own
    initialisation, drawn from `seed`.
    """
    if variables is None:
        variables = drawn(model, seed)
    # A network without batch norm has no statistics.
    variables = {name: variables.get(name, {}) for name in ("params", "batch_stats")}

    # One program for all arrays: one for each of their shapes would take 140 MiB for ResNet-101.
    @jax.jit
    def begin(student):
        # Copies: the step donates the state, and no buffer can be donated twice.
        copies = [jax.tree.map(jnp.copy, student) for _ in range(2)]
        return *copies, optimiser.init(student["params"])

    student, teacher, opt_state = begin(variables)
    return TrainState(
        params=student["params"],
        batch_stats=student["batch_stats"],
        teacher=teacher,
        class_prior=jnp.full((model.num_classes,), beta, jnp.float32),
        opt_state=opt_state,
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
    )
