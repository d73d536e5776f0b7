"""A short l2 attack with momentum around the gradient estimate to be tested, and its step in NumPy."""

import numpy as np
import optax

from rfn_jax.attacks import Budget, GradientAttack, accumulate, steepest

EPS = 1.0  # in l2, large enough for the gradient to turn on the way
ALPHA = EPS / 4
MU = 0.9


def make(estimate, *, steps, decay=MU, **parts):
    """The attack; `parts` are other arguments of `GradientAttack`."""
    direction = optax.chain(accumulate(decay), steepest('l2'))
    options = {'step_size': ALPHA, 'direction': direction} | parts
    return GradientAttack(name='test', limits=Budget(EPS, 'l2'), steps=steps, gradient=estimate, **options)


def textbook_step(x, direction, original):
    """x + alpha d / |d|, in the l2 ball and in [0, 1]."""
    change = x + ALPHA * direction / np.sqrt(np.sum(direction**2)) - original
    change *= min(1.0, EPS / np.sqrt(np.sum(change**2)))
    return np.clip(original + change, 0, 1)
