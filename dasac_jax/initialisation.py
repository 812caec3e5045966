"""A network's fresh variables, without compiling a program as long as the network.

`jax.jit(model.init)` draws each parameter in a piece of code of its own: of a hundred layers that
takes half a minute to compile. Here parameters that are drawn alike share a piece.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal, Var


def initialise(model: nn.Module, key: jax.Array, images: Any) -> Any:
    """The variables that `jax.jit(model.init)(key, images)` gives, bit for bit.

    images: (B, H, W, 3), or their shape; the variables may depend on the shape alone.
    """
    traced, shapes = jax.make_jaxpr(model.init, return_shape=True)(key, images)
    leaves = traced.jaxpr.outvars
    made_by = {v: i for i, equation in enumerate(traced.jaxpr.eqns) for v in equation.outvars}
    part = partial(_part, traced, made_by)
    # First the keys that each is drawn from, one small step for each key, then the drawing.
    keys = [_keys(part((), [leaf])) for leaf in leaves]
    drawing = [part(own, [leaf]) for own, leaf in zip(keys, leaves, strict=True)]
    made = part(traced.jaxpr.invars[:1], list(chain.from_iterable(keys)))
    values = _run(made, [key])
    arguments = [[next(values) for _ in own] for own in keys]

    alike: dict[str, list[int]] = {}
    for i, program in enumerate(drawing):
        alike.setdefault(str(program), []).append(i)
    groups = list(alike.values())
    programs = [drawing[group[0]] for group in groups]
    draw = jax.jit(lambda rows: [_draw(*pair) for pair in zip(programs, rows, strict=True)])
    drawn = draw([[arguments[i] for i in group] for group in groups])
    result = dict(zip(chain(*groups), chain(*drawn), strict=True))
    return jax.tree.unflatten(jax.tree.structure(shapes), [result[i] for i in range(len(leaves))])


def _draw(program: ClosedJaxpr, rows: list[list[jax.Array]]) -> list[jax.Array]:
    """The program's value for each row of arguments, in a loop: it is compiled once."""
    if len(rows) == 1 or not rows[0]:
        return [next(_run(program, row)) for row in rows]
    columns = [jnp.stack(column) for column in zip(*rows, strict=True)]
    values = lax.map(lambda row: next(_run(program, row)), columns)
    return [values[i] for i in range(len(rows))]


def _run(program: ClosedJaxpr, arguments: Sequence[Any]) -> Iterator[Any]:
    """The program's values, its random bits drawn in a row.

    The bits are the same; code that counts them in four dimensions takes five times as long to
    compile.
    """
    known = dict(zip(program.jaxpr.invars, arguments, strict=True))
    known |= zip(program.jaxpr.constvars, program.consts, strict=True)

    def value(variable):
        return variable.val if isinstance(variable, Literal) else known[variable]

    for equation in program.jaxpr.eqns:
        primitive, params = equation.primitive, equation.params
        inputs = [value(variable) for variable in equation.invars]
        if primitive.name == "random_bits":
            row = primitive.bind(*inputs, **params | {"shape": (prod(params["shape"]),)})
            outputs = [row.reshape(params["shape"])]
        elif isinstance(params.get("jaxpr"), ClosedJaxpr) and primitive.name in ("jit", "pjit"):
            outputs = _run(params["jaxpr"], inputs)
        else:
            outputs = primitive.bind(*inputs, **params)
            outputs = outputs if primitive.multiple_results else [outputs]
        known |= zip(equation.outvars, outputs, strict=True)
    return iter([value(variable) for variable in program.jaxpr.outvars])


def _part(traced: ClosedJaxpr, made_by: dict[Var, int], inputs: Any, outputs: Any) -> ClosedJaxpr:
    """What leads from `inputs` to `outputs` in a program."""
    needed, pending = set(), [v for v in outputs if v not in inputs]
    while pending:
        number = made_by.get(pending.pop())
        if number is not None and number not in needed:
            needed.add(number)
            read = traced.jaxpr.eqns[number].invars
            pending += [v for v in read if not isinstance(v, Literal) and v not in inputs]
    equations = [traced.jaxpr.eqns[number] for number in sorted(needed)]
    part = traced.jaxpr.replace(invars=list(inputs), outvars=list(outputs), eqns=equations)
    return ClosedJaxpr(part, traced.consts)


def _keys(part: ClosedJaxpr) -> list[Var]:
    """The keys that a part draws from: those from which it makes what is no key."""

    def is_key(variable):
        return jnp.issubdtype(variable.aval.dtype, jax.dtypes.prng_key)

    drawing = (e for e in part.jaxpr.eqns if not any(map(is_key, e.outvars)))
    return list(dict.fromkeys(v for e in drawing for v in e.invars if is_key(v)))
