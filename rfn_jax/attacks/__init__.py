"""Compiled attacks: a budget, the parts that an attack is composed of, and named recipes."""

from rfn_jax.attacks.budget import Budget
from rfn_jax.attacks.directions import accumulate, steepest
from rfn_jax.attacks.engine import Attack, Surrogate, check_images, check_labels
from rfn_jax.attacks.gradients import AT_IMAGE, GradientEstimate
from rfn_jax.attacks.recipes import ATTACKS, bim, fgsm, mi_fgsm, pgd
from rfn_jax.attacks.starts import at_original, uniform_in_ball

__all__ = [
    'ATTACKS',
    'AT_IMAGE',
    'Attack',
    'Budget',
    'GradientEstimate',
    'Surrogate',
    'accumulate',
    'at_original',
    'bim',
    'check_images',
    'check_labels',
    'fgsm',
    'mi_fgsm',
    'pgd',
    'steepest',
    'uniform_in_ball',
]  # fmt: skip
