"""Closed forms for a linear model: with the logit loss, the gradient is the same everywhere, so attacks end in a corner."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from attacks import ascent
from quick_attacks import CHEAP

from rfn_jax import attacks
from rfn_jax.attacks.gradients import translation

EPS, N, SHAPE, CLASSES = 8 / 255, 6, (7, 7, 3), 4
GENERATOR = np.random.default_rng(0)
W = GENERATOR.normal(size=(*SHAPE, CLASSES)).astype(np.float32)
IMAGES = GENERATOR.uniform(size=(N, *SHAPE)).astype(np.float32)
LABELS = GENERATOR.integers(CLASSES, size=N)
SURROGATE = jax.tree_util.Partial(lambda w, x: jnp.einsum('bhwc,hwck->bk', x, w), W)
GRADIENT = -np.moveaxis(W[..., LABELS], -1, 0)  # of -z_y

SAME_GRADIENT = (
    'bim', 'pgd', 'mi_fgsm', 'ni_fgsm', 'vmi_fgsm', 'vni_fgsm', 'si_ni_fgsm', 'admix', 'ssa', 'pgn', 'emi_fgsm', 'rap',
)  # fmt: skip
ON_ACCELERATORS = ('bim', 'vmi_fgsm', 'ssa')
close = functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=0)


def run(attack):
    more = {'pool': (IMAGES, LABELS)} if attack.needs_pool else {}
    return np.asarray(attack(SURROGATE, IMAGES, LABELS, jax.random.key(0), **more))


def corner(gradient):
    return np.clip(IMAGES + np.float32(EPS) * np.sign(gradient), 0, 1)


@pytest.mark.parametrize(
    'name', [pytest.param(n, marks=[pytest.mark.accelerator] * (n in ON_ACCELERATORS)) for n in SAME_GRADIENT]
)
def test_attacks_whose_gradient_is_the_gradient_end_in_its_corner(name):
    attack = attacks.make(name, eps=EPS, step_size=EPS / 2, steps=4, loss='logit', **CHEAP.get(name, {}))
    close(run(attack), corner(GRADIENT))


def test_one_step_of_fgsm_and_half_a_budget_of_bim():
    close(run(attacks.fgsm(eps=EPS, loss='logit')), corner(GRADIENT))
    half = run(attacks.bim(eps=EPS, step_size=EPS / 4, steps=2, loss='logit'))
    close(half, np.clip(IMAGES + EPS / 2 * np.sign(GRADIENT), 0, 1))


@pytest.mark.accelerator
def test_translation_invariance_ends_in_the_corner_of_the_smoothed_gradient():
    profile = translation.kernel_profile(3, nsig=3.0, kind='gaussian')
    kernel = np.outer(profile, profile)[None, :, :, None]
    smoothed = scipy.ndimage.convolve(np.asarray(GRADIENT, np.float64), kernel, mode='constant')
    attack = attacks.ti_fgsm(eps=EPS, step_size=EPS / 2, steps=4, size=3, loss='logit')
    close(run(attack), corner(smoothed))


def test_the_steepest_l2_step_goes_along_the_gradient():
    adversarial = run(attacks.bim(eps=0.3, step_size=0.3, steps=1, norm='l2', loss='logit'))
    close(adversarial, np.clip(IMAGES + 0.3 * ascent.unit(GRADIENT), 0, 1))
