r"""The minimizers in the notation of their papers: slow, in NumPy, independent of the library.

Notation: w weights, g = grad L(w), e perturbation, g_p = grad L(w + e), m mask; all are float64 vectors. Only the gradient of
the problem comes from JAX, in float32, and the random draws come from the library.

Each method is a function of a `Flat` problem and its options, and returns a rule: `rule(t, w)` is what the method returns
in place of the gradient at update t = 0, 1, ...; it must be called in this order.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax.optim import random_trees


class Flat:
    """A problem whose weights and gradients are vectors."""

    def __init__(self, problem):
        leaves, self.structure = jax.tree.flatten(problem.params)
        self.problem = problem
        self.shapes = [leaf.shape for leaf in leaves]
        ends = np.cumsum([leaf.size for leaf in leaves])
        self.layers = [slice(end - leaf.size, end) for end, leaf in zip(ends, leaves, strict=True)]
        self.start = self.vector(problem.params)

    def vector(self, tree):
        return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])

    def tree(self, w):
        parts = zip(self.layers, self.shapes, strict=True)
        return self.structure.unflatten([jnp.asarray(w[layer].reshape(shape), jnp.float32) for layer, shape in parts])

    def gradient(self, w, examples=None):
        return self.vector(self.problem.jitted[0](self.tree(w), examples))

    def losses(self, w):
        return np.asarray(self.problem.jitted[1](self.tree(w)), np.float64)

    def mask(self, mask):
        """A pytree of booleans with the structure of the parameters as a vector."""
        if mask is None:
            return 1
        return self.vector(jax.tree.map(lambda w, keep: np.full(w.shape, keep), self.problem.params, mask))

    def draw(self, numbers, sample):
        return self.vector(random_trees.draw(self.problem.params, numbers, sample))


def descend(f, rule, steps, *, learning_rate, momentum):
    """The weights after each step of SGD with momentum, `[steps, weights]`."""
    w, velocity, path = f.start, 0, []
    for t in range(steps):
        velocity = momentum * velocity + rule(t, w)
        w = w - learning_rate * velocity
        path.append(w)
    return np.array(path)


def norm(x):
    return math.sqrt(np.sum(x**2))


def unit(x):
    return x / norm(x) if norm(x) > 0 else np.zeros_like(x)


def radius(rho, t):
    return float(rho(t)) if callable(rho) else rho


def ascent_direction(f, w, d, kind):
    """d divided by its norm: over all weights, for each array, or for each array and times the norm of its weights."""
    if kind == 'global':
        return unit(d)
    sizes = [norm(w[layer]) if kind == 'relative' else 1 for layer in f.layers]
    return np.concatenate([size * unit(d[layer]) for size, layer in zip(sizes, f.layers, strict=True)])


def sgd(f):
    return lambda t, w: f.gradient(w)


def sam(f, *, rho, ascent_steps=1, norm='global', mask=None):
    """Foret et al. 2021; with K steps of rho / K, Kim et al. 2023."""
    m = f.mask(mask)

    def rule(t, w):
        e, d = 0, f.gradient(w)
        for _ in range(ascent_steps):
            e = e + radius(rho, t) / ascent_steps * ascent_direction(f, w, m * d, norm)
            d = f.gradient(w + e)
        return d

    return rule


def asam(f, *, rho, eta, mask=None):
    """Kwon et al. 2021, equation 8: e = rho T^2 g / |T g|."""
    m = f.mask(mask)

    def rule(t, w):
        T = np.abs(w) + eta
        g = m * f.gradient(w)
        return f.gradient(w + radius(rho, t) * T**2 * g / norm(T * g))

    return rule


def gsam(f, *, rho, alpha, mask=None):
    """Zhuang et al. 2022, algorithm 1, in its closed form."""
    m = f.mask(mask)

    def rule(t, w):
        g = f.gradient(w)
        g_p = f.gradient(w + radius(rho, t) * unit(m * g))
        g_perpendicular = g - (g @ g_p) / (g_p @ g_p) * g_p
        assert abs(g_perpendicular @ g_p) < 1e-12 * norm(g) * norm(g_p)
        return g_p - alpha * g_perpendicular

    return rule


def looksam(f, *, rho, k, alpha, mask=None):
    """Liu et al. 2022, algorithm 1: g_v = g_p - |g_p| cos(theta) g / |g|."""
    m = f.mask(mask)
    g_v = None

    def rule(t, w):
        nonlocal g_v
        g = f.gradient(w)
        if t % k == 0:
            g_p = f.gradient(w + radius(rho, t) * unit(m * g))
            cos_theta = g @ g_p / (norm(g) * norm(g_p))
            g_v = g_p - norm(g_p) * cos_theta * g / norm(g)
            return g_p
        return g + alpha * norm(g) / norm(g_v) * g_v

    return rule


def esam(f, *, rho, beta, gamma, seed=0, mask=None):
    """Du et al. 2022, algorithm 1; the examples are chosen by sorting the increases of their losses."""
    m = f.mask(mask)

    def rule(t, w):
        b = f.draw((seed, t, 0), lambda key, w: jax.random.bernoulli(key, beta, w.shape))
        e = radius(rho, t) / beta * b * unit(m * f.gradient(w))
        if gamma == 1:
            return f.gradient(w + e)
        rise = f.losses(w + e) - f.losses(w)
        return f.gradient(w + e, np.argsort(-rise, kind='stable')[: math.ceil(gamma * len(rise))])

    return rule


def friendly_sam(f, *, rho, sigma, decay, mask=None):
    """Li et al. 2024, as in the authors' code: the moving average does not yet include this gradient."""
    m, average = f.mask(mask), None

    def rule(t, w):
        nonlocal average
        g = f.gradient(w)
        d = g if average is None else g - sigma * average
        average = g if average is None else decay * average + (1 - decay) * g
        return f.gradient(w + radius(rho, t) * unit(m * d))

    return rule


def random_sam(f, *, rho, seed=0, mask=None):
    """A random direction, normally distributed."""
    m = f.mask(mask)

    def rule(t, w):
        z = f.draw((seed, t, 0), lambda key, w: jax.random.normal(key, w.shape))
        return f.gradient(w + radius(rho, t) * unit(m * z))

    return rule
