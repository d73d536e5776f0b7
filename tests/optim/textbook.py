r"""The minimizers in the notation of their papers: slow, in NumPy, independent of the library.

Notation: w weights, g = grad L(w), e perturbation, g_p = grad L(w + e), m mask; all are float64 vectors. Only the gradient of
the problem comes from JAX, in the type of its parameters, and the random draws come from the library.

Each method is a function of a `Flat` problem, the mask, what the method remembers, and its options, and returns what it
descends along in place of the gradient at update t. `rule` makes a function of t and w of it.
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
        self.problem, self.dtype = problem, leaves[0].dtype
        self.shapes = [leaf.shape for leaf in leaves]
        ends = np.cumsum([leaf.size for leaf in leaves])
        self.layers = [slice(end - leaf.size, end) for end, leaf in zip(ends, leaves, strict=True)]
        self.start = self.vector(problem.params)

    def vector(self, tree):
        return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])

    def tree(self, w):
        parts = zip(self.layers, self.shapes, strict=True)
        return self.structure.unflatten([jnp.asarray(w[layer].reshape(shape), self.dtype) for layer, shape in parts])

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
        return self.vector(random_trees.draw(self.problem.params, random_trees.key_of(*numbers), sample))


def descend(f, rule, steps, *, learning_rate, momentum=0.0, weight_decay=0.0):
    """The weights after each step of SGD with momentum, `[steps, weights]`; numbers that change are functions of t."""
    w, velocity, path = f.start, 0, []
    for t in range(steps):
        velocity = momentum * velocity + rule(t, w) + weight_decay * w
        w = w - at(learning_rate, t) * velocity
        path.append(w)
    return np.array(path)


def norm(x):
    return math.sqrt(np.sum(x**2))


def unit(x):
    return x / norm(x) if norm(x) > 0 else np.zeros_like(x)


def at(number, t):
    return float(number(t)) if callable(number) else number


def ascent_direction(f, w, d, kind):
    """d divided by its norm: over all weights, for each array, or for each array and times the norm of its weights."""
    if kind == 'global':
        return unit(d)
    sizes = [norm(w[layer]) if kind == 'relative' else 1 for layer in f.layers]
    return np.concatenate([size * unit(d[layer]) for size, layer in zip(sizes, f.layers, strict=True)])


def rule(f, method, *, mask=None, rho=0.0, **options):
    """A function of t = 0, 1, ... and w, which must be called in this order."""
    m, memory = f.mask(mask), {}
    return lambda t, w: globals()[method](f, t, w, m, memory, rho=at(rho, t), **options)


def sgd(f, t, w, m, memory, *, rho):
    return f.gradient(w)


def sam(f, t, w, m, memory, *, rho, ascent_steps=1, norm='global'):
    """Foret et al. 2021; with K steps of rho / K, Kim et al. 2023."""
    e, d = 0, f.gradient(w)
    for _ in range(ascent_steps):
        e = e + rho / ascent_steps * ascent_direction(f, w, m * d, norm)
        d = f.gradient(w + e)
    return d


def asam(f, t, w, m, memory, *, rho, eta):
    """Kwon et al. 2021, equation 8: e = rho T^2 g / |T g|."""
    T = np.abs(w) + eta
    g = m * f.gradient(w)
    return f.gradient(w + rho * T**2 * g / norm(T * g))


def gsam(f, t, w, m, memory, *, rho, alpha):
    """Zhuang et al. 2022, algorithm 1, in its closed form."""
    g = f.gradient(w)
    g_p = f.gradient(w + rho * unit(m * g))
    g_perpendicular = g - (g @ g_p) / (g_p @ g_p) * g_p
    return g_p - alpha * g_perpendicular


def looksam(f, t, w, m, memory, *, rho, k, alpha):
    """Liu et al. 2022, algorithm 1: g_v = g_p - |g_p| cos(theta) g / |g|."""
    g = f.gradient(w)
    if t % k == 0:
        g_p = f.gradient(w + rho * unit(m * g))
        cos_theta = g @ g_p / (norm(g) * norm(g_p))
        memory['g_v'] = g_p - norm(g_p) * cos_theta * g / norm(g)
        return g_p
    return g + alpha * norm(g) * unit(memory['g_v'])


def esam(f, t, w, m, memory, *, rho, beta, gamma, seed=0):
    """Du et al. 2022, algorithm 1; the examples are chosen by sorting the increases of their losses."""
    b = f.draw((seed, t, 0), lambda key, w: jax.random.bernoulli(key, beta, w.shape))
    e = rho / beta * b * unit(m * f.gradient(w))
    if gamma == 1:
        return f.gradient(w + e)
    rise = f.losses(w + e) - f.losses(w)
    return f.gradient(w + e, np.argsort(-rise, kind='stable')[: math.ceil(gamma * len(rise))])


def friendly_sam(f, t, w, m, memory, *, rho, sigma, decay):
    """Li et al. 2024, as in the authors' code: the moving average does not yet include this gradient."""
    g, average = f.gradient(w), memory.get('average')
    d = g if average is None else g - sigma * average
    memory['average'] = g if average is None else decay * average + (1 - decay) * g
    return f.gradient(w + rho * unit(m * d))


def random_sam(f, t, w, m, memory, *, rho, seed=0):
    """A random direction, normally distributed."""
    z = f.draw((seed, t, 0), lambda key, w: jax.random.normal(key, w.shape))
    return f.gradient(w + rho * unit(m * z))
