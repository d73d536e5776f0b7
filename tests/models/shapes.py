"""Properties of a network that tracing reveals, without computing anything."""

import math

import flax.errors
import flax.linen as nn
import jax
import jax.extend.core
import jax.numpy as jnp

from rfn_jax.models import hooks
from rfn_jax.models.weights import layout


def shapes_of(module, size=8):
    """Shapes of the variables, for an image of `size` rows and columns."""
    return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))


def count(module, size=8):
    """The number of parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(module, size)['params']))


def convolutions(jaxpr):
    """All convolutions of a program, inner ones too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'conv_general_dilated':
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from convolutions(inner)


def is_plain(equation):
    """Whether a convolution is an ordinary one, NHWC and HWIO."""
    numbers = equation.params['dimension_numbers']
    return (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def rows(module, size):
    """Rows of the output of each layer that returns an image, by the name of the layer."""
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
    """The place of the leaves of each submodule in a state dict: keys without their last component, by path."""
    slots = layout.slots(shapes_of(module, size), layout.namings_of(module)[naming])
    found = {}
    for path, slot in slots.items():
        place = slot.key.rpartition('.')[0]
        assert found.setdefault('/'.join(path[1:-1]), place) == place
    return found


def normed(keys):
    """Keys of convolutions in torchvision's blocks, and of the normalizations behind them, from those of the blocks."""
    return {f'{place}/{part}': f'{key}.{i}' for place, key in keys.items() for i, part in enumerate(('conv', 'bn'))}


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
