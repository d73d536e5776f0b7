"""The basic recipes in every norm: slow textbook twins (what holds for all attacks is in `test_suite.py`)."""

import jax.numpy as jnp
import numpy as np
import pytest
from attacks import ascent
from quick_attacks import slow

from rfn_jax.attacks import ATTACKS, Budget, bim, fgsm, mi_fgsm, pgd, uniform_in_ball

EPS = {'linf': 8 / 255, 'l2': 0.5}
STEPS = 5
DECAY = 0.9


def make(name, norm, eps):
    steps = {} if name == 'fgsm' else {'step_size': eps / 4, 'steps': STEPS}
    return ATTACKS.make(name, eps=eps, norm=norm, **steps, **({'decay': DECAY} if name == 'mi_fgsm' else {}))


@pytest.mark.parametrize('norm', EPS)
@pytest.mark.parametrize('name', [slow('bim'), 'fgsm', 'mi_fgsm', 'pgd'])
def test_recipe_equals_its_twin(name, norm, problem, loss_and_gradient):
    images, eps = problem.images, EPS[norm]
    alpha, steps = (eps, 1) if name == 'fgsm' else (eps / 4, STEPS)
    starts, expected = images, []
    if name == 'pgd':  # the start uses key 0 of each example
        starts = np.asarray(uniform_in_ball(jnp.asarray(images), ascent.fold(problem.keys, 0), Budget(eps, norm)))
    for x, original, label in zip(starts, images.astype(np.float64), problem.labels, strict=True):
        g = np.zeros(original.shape)
        for _ in range(steps):
            dx = loss_and_gradient(x, label)[1]
            g = DECAY * g + dx / np.sum(np.abs(dx)) if name == 'mi_fgsm' else dx
            if norm == 'linf':
                assert np.min(np.abs(g)) > 1e-6 * np.mean(np.abs(g)), 'choose another problem: a sign is not stable'
            x = ascent.step(x, g, original, norm=norm, eps=eps, alpha=alpha)
        expected.append(x)
    np.testing.assert_allclose(make(name, norm, eps)(*problem.arguments), expected, atol=1e-6, rtol=0)
    assert np.max(np.abs(expected - images)) > eps / 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'norm', 'small', 'large'), [('fgsm', 'linf', 0.1 / 255, 0.4), ('pgd', 'l2', 0.001, 3.0)]
)
def test_white_box_success_rises_with_eps(name, norm, small, large, problem):
    surrogate, images, _, keys = problem.arguments
    classes = np.argmax(surrogate(images), axis=1)
    rates = []
    for eps in (small, large):
        adversarial = make(name, norm, eps)(surrogate, images, classes, keys)
        rates.append(np.mean(np.argmax(surrogate(adversarial), axis=1) != classes))
    assert rates[0] < 0.1
    assert rates[1] > 0.9


def test_defaults_are_those_of_the_paper():
    for attack in (bim(), pgd(), mi_fgsm()):
        assert attack.limits == Budget(4 / 255, 'linf')
        assert attack.step_size == pytest.approx(0.4 / 255)
        assert attack.steps == attack.gradient_evaluations == 50
    assert (fgsm().step_size, fgsm().gradient_evaluations) == (4 / 255, 1)
