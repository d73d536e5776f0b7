"""What holds for every surrogate that is made of others, and how many network gradients it takes."""

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from quick_attacks import slow
from small_networks import FUNCTION, IMAGES, KEYS, LABELS, attack, gradient

from rfn_jax import attacks, models
from rfn_jax.attacks import Ensemble, SteppedSurrogate, checkpoint_cycle
from rfn_jax.attacks import attack as attack_lib
from rfn_jax.core.errors import InputError, InputTypeError
from rfn_jax.models import hooks

TRANSFORMS = {
    'skip_gradient': attacks.skip_gradient(0.3),
    'linear_backprop': attacks.linear_backprop('layer2_0'),
    'ghost_network': attacks.ghost_network(0.3, 0.1),
}


@pytest.mark.parametrize('name', [slow('skip_gradient'), slow('linear_backprop'), 'ghost_network'])
def test_an_attack_with_a_transform_is_the_attack_on_the_transformed_surrogate_at_every_step(name):
    network, other = (small_networks.classifier('resnet', seed) for seed in (0, 1))
    transform, crafting = TRANSFORMS[name], attack(TRANSFORMS[name])
    found = crafting(network, IMAGES, LABELS, KEYS)
    expected = small_networks.plain_attack(transform(network), IMAGES, LABELS, KEYS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with jax.no_tracing():  # checkpoints share a compilation
        changed = crafting(other, IMAGES, LABELS, KEYS)
    assert np.any(changed != found)


@pytest.mark.parametrize('name', TRANSFORMS)
def test_functions_are_refused(name):
    for surrogate in (FUNCTION, Ensemble((small_networks.classifier('mlp'), FUNCTION)), nn.Dense(3), None, Plain()):
        message = f'{name} needs a Classifier, or a surrogate made of Classifiers, got {type(surrogate).__name__}$'
        with pytest.raises(InputError, match=message):
            TRANSFORMS[name](surrogate)


@pytest.mark.slow
def test_they_compose_in_any_order():
    network = small_networks.classifier('resnet')
    linbp, ghost, sgm = attacks.linear_backprop('layer1_0'), attacks.ghost_network(0.3, 0.2), attacks.skip_gradient(0.4)
    first, second = gradient(linbp(ghost(sgm(network)))), gradient(sgm(ghost(linbp(network))))
    np.testing.assert_allclose(first[0], second[0], atol=1e-5)
    for found, logits in (first, second):
        np.testing.assert_allclose(logits, small_networks.logits_of(ghost(network)), atol=1e-6)
        assert np.max(np.abs(found - gradient(ghost(network))[0])) > 1e-3


@pytest.mark.parametrize('name', ['skip_gradient', 'linear_backprop'])
def test_in_an_ensemble_they_act_on_each_member(name):
    networks = small_networks.classifier('resnet'), small_networks.classifier('resnet', 1)
    each = [gradient(TRANSFORMS[name](network)) for network in networks]
    both = gradient(TRANSFORMS[name](Ensemble(networks)))
    jax.tree.map(lambda b, x, y: np.testing.assert_allclose(b, (x + y) / 2, atol=1e-5), both, *each)


class Plain(SteppedSurrogate):
    """A surrogate made of no other, whose images change at every step."""

    def at_step(self, images, keys, step):
        del keys
        return (images + step).reshape(len(images), -1)


def test_surrogates_say_whether_they_vary_from_step_to_step():
    network = small_networks.classifier('resnet')
    sgm, ghost = TRANSFORMS['skip_gradient'], TRANSFORMS['ghost_network']
    mixed = Ensemble((network, sgm(checkpoint_cycle([network]))))
    for surrogate in (Plain(), ghost(network), sgm(ghost(network)), mixed):
        assert attack_lib.varies(surrogate)
        with pytest.raises(InputTypeError, match=r'changes from step to step: call at_step\(images, keys, step\)'):
            surrogate(IMAGES)
    for surrogate in (sgm(network), Ensemble((network, sgm(network))), network, FUNCTION):
        assert not attack_lib.varies(surrogate)
        np.testing.assert_allclose(surrogate(IMAGES), small_networks.logits_of(surrogate), atol=1e-6)


SEEN = collections.Counter()


@jax.custom_vjp
def counted(x):
    """Returns x; each backward pass through it is counted."""
    return x


def count(_, g):
    jax.debug.callback(lambda: SEEN.update(['backward']))
    return (g,)


counted.defvjp(lambda x: (x, None), count)


class Network(nn.Module):
    """A residual sum whose branch is counted."""

    @nn.compact
    def __call__(self, x, *, train):
        first, inside, last = (hooks.Relu(name=name) for name in ('first', 'inside', 'last'))
        y = hooks.Residual()(first(x), lambda x: inside(counted(2 * x - 1)))
        return last(y).reshape(len(x), -1)[:, :5] * self.param('scale', nn.initializers.ones, ())


def networks(number):
    return tuple(models.Classifier({'params': {'scale': jnp.float32(i + 1)}}, Network(), 5) for i in range(number))


SURROGATES = {
    'network': (lambda: networks(1)[0], 1),
    'ensemble': (lambda: Ensemble(networks(3), 'losses'), 3),
    'cycle': (lambda: checkpoint_cycle(networks(3)), 1),
    'skip_gradient': (lambda: attacks.skip_gradient()(networks(1)[0]), 1),
    'mixed ensemble': (lambda: Ensemble((attacks.ghost_network()(networks(1)[0]), checkpoint_cycle(networks(2)))), 2),
    'linear_backprop': (lambda: attacks.linear_backprop('first')(networks(1)[0]), 2),
    'linear_backprop of ensemble': (lambda: attacks.linear_backprop('first')(Ensemble(networks(2))), 4),
}
ATTACKS = {
    'bim': (attacks.bim(steps=2), 2),
    'vmi_fgsm': (attacks.vmi_fgsm(steps=2, neighbors=2), 2 * 3),
    'si_ni_fgsm': (attacks.si_ni_fgsm(steps=2, copies=3), 2 * 3),
    'pgd': (attacks.pgd(steps=2, restarts=3), 2 * 3),
    'apgd': (attacks.apgd(steps=3, restarts=2), 3 * 2),
    'linbp': (attacks.linbp(from_layer='first', steps=2), 2 * 2),
    'ila': (attacks.ila(layer='last', first_steps=2, steps=1), 2 + 1),
}
PAIRS = [(name, 'bim') for name in SURROGATES] + [('network', name) for name in ATTACKS if name != 'bim']
PAIRS += [slow('ensemble', 'vmi_fgsm'), ('ensemble', 'apgd'), slow('ensemble', 'linbp'), ('linear_backprop', 'ila')]


@pytest.mark.parametrize(('surrogate', 'name'), PAIRS)
def test_evaluations_are_the_network_gradients_that_are_computed(surrogate, name):
    (make, of_surrogate), (crafting, of_attack) = SURROGATES[surrogate], ATTACKS[name]
    SEEN.clear()
    crafting(make(), IMAGES[:2], LABELS[:2], KEYS[:2])
    jax.effects_barrier()
    assert SEEN['backward'] == crafting.evaluations(make()) == of_surrogate * of_attack
    assert crafting.gradient_evaluations == of_attack
