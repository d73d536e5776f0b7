"""Mean losses with closed forms: quadratics, one for each example, whose mean Hessian is known."""

import jax.numpy as jnp
import numpy as np

from rfn_jax import landscape


def quadratic(eigenvalues, *, examples=6, batch=4, seed=0):
    """`L(w) = (w - c)^T A (w - c) / 2` with the given eigenvalues, as a mean over examples; also A and c.

    The parameters are a dictionary of a matrix and a vector. The examples differ in their linear and constant terms.
    """
    draw = np.random.default_rng(seed)
    size = len(eigenvalues)
    basis = np.linalg.qr(draw.normal(size=(size, size)))[0]
    hessian, center = basis @ np.diag(eigenvalues) @ basis.T, draw.normal(size=size)
    slopes = draw.normal(size=(examples, size))
    slopes -= slopes.mean(0)
    count = -(-examples // batch) * batch
    padded = np.concatenate([slopes, np.full((count - examples, size), 7.0)]).reshape(-1, batch, size)
    weights = (np.arange(count) < examples).reshape(-1, batch)

    def of_examples(params, constants, batch):
        w = flat(params) - constants['center']
        return w @ constants['hessian'] @ w / 2 + batch @ w

    constants = {'hessian': jnp.asarray(hessian, jnp.float32), 'center': jnp.asarray(center, jnp.float32)}
    loss = landscape.MeanLoss(
        jnp.asarray(padded, jnp.float32), jnp.asarray(weights, jnp.float32), constants, of_examples
    )
    return loss, hessian, center


def flat(params):
    return jnp.concatenate([params['b'], params['w'].ravel()])


def tree(vector):
    """The inverse of `flat`, for vectors of six numbers."""
    vector = jnp.asarray(vector, jnp.float32)
    return {'b': vector[:2], 'w': vector[2:].reshape(2, 2)}
