"""GoogLeNet and Inception v3 with few channels, for tests that trace networks without computing anything."""

import functools

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax import models
from rfn_jax.models import hooks

MIN_SIZES = {'GoogLeNet': 15, 'InceptionV3': 75}  # rows and columns of an image
WIDTH = {'googlenet': 1 / 32, 'inception_v3': 1 / 64}


def network(name, **options):
    """A narrow network in bfloat16, so that a last layer computed in bfloat16 would be noticed."""
    options = {'width': WIDTH[name.removeprefix('cifar_')], 'dtype': jnp.bfloat16} | options
    return models.MODELS.make(name, num_classes=5, **options)


@functools.cache
def variables_of(module, height=None, width=None):
    """Shapes of the variables; by default, for the smallest image allowed."""
    min_size = MIN_SIZES[type(module).__name__]
    images = jnp.zeros((1, height or min_size, width or min_size, 3))
    return jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))


def params_of(module):
    """Shapes of the parameters by path."""
    return flax.traverse_util.flatten_dict(variables_of(module)['params'])


@functools.cache
def trace(module, height, width, train, seed=0):
    """Logits and changes of a call, and all modules that it calls, with the shapes of their results."""
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
