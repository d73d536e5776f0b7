"""Applies the first copy of an input transform to images, outside an attack."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax.attacks.inputs import transforms


@functools.partial(jax.jit, static_argnums=0)
def compiled(transform, images, keys):
    labels = jnp.zeros(len(images), jnp.int32)
    return transform.apply(transforms.Input(images, labels, keys, keys, jnp.int32(0), None))


def apply(transform, images):
    return np.array(compiled(transform, images, jax.random.split(jax.random.key(0), len(images))))
