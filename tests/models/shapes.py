"""What can be told of a network without computing anything."""

import functools
import math

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.models import hooks
from rfn_jax.models.weights import layout


def shapes_of(module, size=8):
    """Shapes of the variables, for an image of so many rows and columns."""
    return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))


def count(module, size=8):
    """The number of parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(module, size)['params']))


def rows(module, size):
    """Rows of the image after each layer that keeps one, by its name."""
    found = {}

    def visit(call, module, *args, **kwargs):
        result = call(*args, **kwargs)
        if len(module.path) == 1 and result.ndim == 4:
            found[module.name] = result.shape[1]
        return result

    with hooks.intercept(nn.Module, visit):
        shapes_of(module, size)
    return found


def places(module, naming, size=8):
    """Where the leaves of each submodule lie in a state dict: keys without their last part, by path."""
    slots = layout.slots(shapes_of(module, size), layout.namings_of(module)[naming])
    found = {}
    for path, slot in slots.items():
        place = slot.key.rpartition('.')[0]
        assert found.setdefault('/'.join(path[1:-1]), place) == place
    return found


def calls(module, kind, size=8):
    """The submodules of a kind in the order of their calls, and what they are called with, by path."""
    found = {}

    def visit(call, module, x, *args, **kwargs):
        found['/'.join(module.path)] = (module, jax.ShapeDtypeStruct(x.shape, x.dtype))
        return call(x, *args, **kwargs)

    with hooks.intercept(kind, visit):
        shapes_of(module, size)
    return found


def draws(module, *, train, size=8):
    """Whether a network needs random numbers."""
    images = jnp.zeros((2, size, size, 3))

    def run(variables):
        return module.apply(variables, images, train=train, mutable=['batch_stats'])

    try:
        jax.eval_shape(run, shapes_of(module, size))
    except flax.errors.InvalidRngError:
        return True
    return False


def tracers(size):
    """`variables_of` and `trace`, whose variables are made with images of `size` rows and columns by default."""

    @functools.cache
    def variables_of(module, height=size, width=size):
        return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, height, width, 3)), train=False))

    @functools.cache
    def trace(module, height, width, train, seed=0):
        """Logits and changes of an application, and all modules that it calls with the shapes of what they give."""
        calls, variables = [], variables_of(module)

        def visit(call, called, *args, **kwargs):
            result = call(*args, **kwargs)
            calls.append((called, getattr(result, 'shape', None)))
            return result

        def apply(variables):
            rngs = {} if seed is None else {'dropout': jax.random.key(seed)}
            images = jnp.zeros((2, height, width, 3))
            return module.apply(variables, images, train=train, mutable=['batch_stats', 'auxiliary_logits'], rngs=rngs)

        with hooks.intercept(nn.Module, visit):
            logits, changes = jax.eval_shape(apply, variables)
        return logits, changes, calls

    return variables_of, trace
