"""Invariants of all attacks: every recipe, and other combinations of components, on small networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from attacks import ascent
from quick_attacks import CHEAP, slow

from rfn_jax import attacks
from rfn_jax.core import losses, sharding
from rfn_jax.core.errors import InputError

EPS = {'linf': 8 / 255, 'l2': 0.5}
NAMES = [*attacks.ATTACKS, 'mi+di+ti+sgm', 'ni+vt+si+ghost', 'shift+rap']
NETWORKS = {'sgm', 'ghost', 'linbp', 'ila', 'mi+di+ti+sgm', 'ni+vt+si+ghost'}  # they need a network with hooks
DRAW_NOTHING = {
    'fgsm', 'bim', 'mi_fgsm', 'ni_fgsm', 'si_ni_fgsm', 'ti_fgsm', 'pi_fgsm', 'emi_fgsm', 'sgm', 'linbp', 'ila',
}  # fmt: skip
BASIC = ('fgsm', 'bim', 'mi_fgsm', 'pgd')
# In l2 if it is supported, since there no sign can flip due to rounding.
CASES = [(name, 'linf' if name == 'pi_fgsm' else 'l2', 'float32') for name in NAMES]
CASES += [(name, 'linf', 'float32') for name in BASIC]
CASES += [(name, 'l2', 'bfloat16') for name in ('bim', 'apgd', 'mi+di+ti+sgm')]  # the surrogate computes in bfloat16
QUICK = {('bim', 'linf', 'float32'), ('pgd', 'l2', 'float32')}


@functools.cache
def make(name, norm='linf', steps=3, **more):
    eps = EPS[norm]
    options = {**CHEAP.get(name, {}), **more}
    if name != 'fgsm':
        options['steps'] = steps
    if name not in ('fgsm', 'apgd'):
        options['step_size'] = eps / 2
    return attacks.make(name, eps=eps, norm=norm, **options)


def surrogates(name, problem, dtype='float32'):
    """Two checkpoints of one network."""
    if name not in NETWORKS and dtype == 'float32':
        return problem.surrogate, problem.other_surrogate
    module = small_networks.module('resnet').clone(dtype=jnp.dtype(dtype))
    return tuple(small_networks.classifier('resnet', seed, module) for seed in (0, 1))


def mean_loss(surrogate, images, labels):
    return float(jnp.mean(losses.cross_entropy(surrogate(jnp.asarray(images)), labels)))


@pytest.mark.parametrize(('name', 'norm', 'dtype'), [case if case in QUICK else slow(*case) for case in CASES])
def test_images_stay_in_the_budget_and_depend_on_nothing_but_their_example(name, norm, dtype, problem):
    attack, (surrogate, other_surrogate) = make(name, norm), surrogates(name, problem, dtype)
    images, labels, keys = problem.images, problem.labels, problem.keys
    pool = {'pool': (images[:8], labels[:8])} if attack.needs_pool else {}

    def run(rows=slice(None), surrogate=surrogate, keys=keys, attack=attack):
        return np.asarray(attack(surrogate, images[rows], labels[rows], keys[rows], **pool))

    whole = run()
    lengths = ascent.lengths(whole - images, norm)
    assert (whole.shape, whole.dtype) == (images.shape, np.float32)
    assert (whole.min(), whole.max()) == (0, 1)
    assert np.all(lengths <= EPS[norm] + 1e-6)
    assert np.mean(lengths > EPS[norm] * (0.5 if name in BASIC else 0.1)) > 0.9  # the budget is used
    assert mean_loss(surrogate, whole, labels) > mean_loss(surrogate, images, labels)
    other_draws = np.any(run(keys=keys[::-1]) != whole, axis=(1, 2, 3))
    assert not np.any(other_draws) if name in DRAW_NOTHING else np.mean(other_draws) > 0.5
    with jax.no_tracing():  # checkpoints share a compilation
        assert np.any(np.abs(run(surrogate=other_surrogate) - whole) > EPS[norm] / 20)

    close = functools.partial(np.testing.assert_allclose, atol=2e-5, rtol=0)
    close(run(slice(None, None, -1)), whole[::-1])
    close(run(slice(5, 6), attack=jax.jit(attack)), whole[5:6])
    mesh = sharding.data_mesh()
    examples = [jax.device_put(x[:8], sharding.batch_sharding(mesh)) for x in (images, labels, keys)]
    spread = attack(jax.device_put(surrogate, sharding.replicated(mesh)), *examples, **pool)
    assert len(spread.sharding.device_set) == 8
    close(spread, whole[:8])


@pytest.mark.parametrize('name', [name if name == 'pgd' else slow(name) for name in NAMES if name != 'ila'])
def test_targeted_attacks_lower_the_loss_to_the_target(name, problem):
    attack, (surrogate, _) = make(name, targeted=True), surrogates(name, problem)
    arguments, goals = (problem.images, problem.labels, problem.keys), (problem.labels + 1) % 5
    pool = {'pool': (problem.images[:8], problem.labels[:8])} if attack.needs_pool else {}
    adversarial = attack(surrogate, *arguments, target_labels=goals, **pool)
    assert mean_loss(surrogate, adversarial, goals) < mean_loss(surrogate, problem.images, goals)
    with pytest.raises(InputError, match='is targeted: it needs target_labels'):
        attack(surrogate, *arguments, **pool)


@pytest.mark.parametrize('name', ['bim', 'ila', 'apgd'])
def test_target_labels_for_an_untargeted_attack_are_refused(name, problem):
    with pytest.raises(InputError, match='is not targeted: it takes no target_labels'):
        make(name)(*problem.arguments, target_labels=problem.labels)


def test_restarts_keep_the_best_run_of_each_example(problem):
    surrogate, images, labels, keys = problem.arguments
    one, many = (make('pgd', steps=1, restarts=r)(*problem.arguments) for r in (1, 4))
    loss_of_one, loss_of_many = (losses.cross_entropy(surrogate(x), labels) for x in (one, many))
    assert np.mean(loss_of_many) > np.mean(loss_of_one)
    assert np.all(ascent.lengths(many - images, 'linf') <= EPS['linf'] + 1e-6)
    assert make('pgd', restarts=4).gradient_evaluations == 4 * make('pgd').gradient_evaluations
    turned = make('pgd', steps=1, restarts=4)(surrogate, images[::-1], labels[::-1], keys[::-1])
    np.testing.assert_allclose(turned[::-1], many, atol=1e-6, rtol=0)
