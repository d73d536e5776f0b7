"""Properties of a network that tracing reveals, without computing anything."""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.extend.core
import jax.numpy as jnp

from rfn_jax.models import hooks
from rfn_jax.models.weights import layout


class Call(NamedTuple):
    """The call of a submodule; `x` and `out` are shapes, or None."""

    path: str
    module: nn.Module
    x: jax.ShapeDtypeStruct | None
    out: jax.ShapeDtypeStruct | None


class Trace(NamedTuple):
    logits: Any
    changes: Any
    calls: list[Call]


@functools.cache
def shapes_of(module, shape=(8, 8, 3)):
    """Shapes of the variables, for an image of a shape."""
    return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))


@functools.cache
def trace(module, shape=(8, 8, 3), *, train=False, seed=0):
    """A call of a network for two images, with a key for dropout unless `seed` is None."""
    calls, variables = [], shapes_of(module, shape)

    def shape_of(value):
        return jax.ShapeDtypeStruct(value.shape, value.dtype) if isinstance(value, jax.Array) else None

    def visit(call, called, x=None, *args, **kwargs):
        out = call(x, *args, **kwargs)
        calls.append(Call('/'.join(called.path), called, shape_of(x), shape_of(out)))
        return out

    def apply(variables):
        rngs = {} if seed is None else {'dropout': jax.random.key(seed)}
        mutable = ['batch_stats', 'auxiliary_logits']
        return module.apply(variables, jnp.zeros((2, *shape)), train=train, mutable=mutable, rngs=rngs)

    with hooks.intercept(nn.Module, visit):
        logits, changes = jax.eval_shape(apply, variables)
    return Trace(logits, changes, calls[:-1])  # the last call is that of the network


def calls(module, kind, shape=(8, 8, 3), **options):
    """The calls of the submodules of a kind, in their order."""
    return [call for call in trace(module, shape, **options).calls if isinstance(call.module, kind)]


def layers(module, shape, **options):
    """The calls of the direct submodules by name."""
    return {call.path: call for call in trace(module, shape, **options).calls if '/' not in call.path}


def count(module):
    """The number of parameters, for an image of 32 rows and columns."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(module, (32, 32, 3))['params']))


def equations(jaxpr, primitive):
    """All equations of a kind in a program, inner ones too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == primitive:
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner, primitive)


def convolutions(function, *arguments):
    """The convolutions of a function."""
    return list(equations(jax.make_jaxpr(function)(*arguments).jaxpr, 'conv_general_dilated'))


def is_plain(equation):
    """Whether a convolution is an ordinary one, NHWC and HWIO."""
    numbers = equation.params['dimension_numbers']
    return (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def places(module, naming):
    """The place of the leaves of each submodule in a state dict: keys without their last component, by path."""
    slots = layout.slots(shapes_of(module), layout.namings_of(module)[naming])
    found = {}
    for path, slot in slots.items():
        place = slot.key.rpartition('.')[0]
        assert found.setdefault('/'.join(path[1:-1]), place) == place
    return found
