"""What textbook attacks have in common, in NumPy and float64 for one image `[H, W, C]` or a batch `[B, H, W, C]`."""

import jax
import numpy as np


def lengths(change, norm):
    """The size of each change in a norm, `[]` or `[B]`."""
    change = np.asarray(change, np.float64)
    axes = (-3, -2, -1)
    return np.max(np.abs(change), axis=axes) if norm == 'linf' else np.sqrt(np.sum(change**2, axis=axes))


def unit(change):
    """Each change divided by its L2 norm; zero stays zero."""
    change = np.asarray(change, np.float64)
    return change / np.maximum(lengths(change, 'l2'), 1e-30)[..., None, None, None]


def project(x, original, *, norm, eps):
    """The images in the ball around the originals, and in [0, 1]."""
    change = x - original
    if norm == 'linf':
        change = np.clip(change, -eps, eps)
    else:
        change = change * np.minimum(1, eps / np.maximum(lengths(change, 'l2'), 1e-30))[..., None, None, None]
    return np.clip(original + change, 0, 1)


def step(x, g, original, *, norm, eps, alpha):
    """One step of steepest ascent along the gradient `g`."""
    return project(x + alpha * (np.sign(g) if norm == 'linf' else unit(g)), original, norm=norm, eps=eps)


def ascend(gradient, images, *, norm, eps, alpha, steps):
    """Steps of steepest ascent, where `gradient(x, t)` is the gradient at step t."""
    x = np.asarray(images, np.float64)
    for t in range(steps):
        x = step(x, np.asarray(gradient(x.astype(np.float32), t)), images, norm=norm, eps=eps, alpha=alpha)
    return x


def fold(keys, *numbers):
    """The keys `[B]` that follow from others by the given numbers, one after another."""
    for number in numbers:
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
    return keys


def uniform(key, numbers, shape, radius):
    """A draw from [-radius, radius] with the key that follows from another by the given numbers."""
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return np.asarray(jax.random.uniform(key, shape, np.float32, -radius, radius), np.float64)
