import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from small_networks import EPS, FUNCTION, IMAGES, KEYS, LABELS, attack

from rfn_jax.attacks import bim, pgd
from rfn_jax.attacks.inputs import transforms
from rfn_jax.attacks.intermediate_level import FeatureProjection, IntermediateLevelAttack, features
from rfn_jax.attacks.surrogates.ensembles import Ensemble
from rfn_jax.attacks.surrogates.ghost import ghost_network
from rfn_jax.attacks.surrogates.linear_backprop import linear_backprop
from rfn_jax.core import losses
from rfn_jax.core.errors import InputError

ILA = IntermediateLevelAttack(attack(), attack(), 'layer2_0')


def plain_features(network, layer, x):
    """The output of a layer, as Flax captures it."""
    x = (x - small_networks.MEAN) / small_networks.STD
    state = network.module.apply(
        network.variables, x, train=False, capture_intermediates=True, mutable=['intermediates']
    )[1]
    return state['intermediates'][layer]['__call__'][0]


def steps(gradient, images, first):
    """Two steps in the L2 ball, from `first`."""

    def norms(x):
        return np.sqrt(np.sum(x**2, axis=(1, 2, 3), keepdims=True))

    x = first
    for _ in range(2):
        g = np.asarray(gradient(x))
        change = x + EPS / 2 * g / norms(g) - images
        x = images + change * np.minimum(1, EPS / norms(change))
    return x


@pytest.mark.parametrize(('kind', 'layer'), [('resnet', 'layer1_0'), ('mlp', 'relu1')])
def test_it_follows_the_change_of_the_features(kind, layer):
    network = small_networks.classifier(kind)

    def loss(x):
        return jnp.sum(losses.cross_entropy(network(x), LABELS))

    def projection(x, guide):
        origin = plain_features(network, layer, IMAGES)
        return jnp.sum((plain_features(network, layer, x) - origin) * (plain_features(network, layer, guide) - origin))

    guide = steps(jax.jit(jax.grad(loss)), IMAGES, IMAGES)
    gradient = jax.jit(jax.grad(projection))
    expected = steps(lambda x: gradient(x, guide), IMAGES, IMAGES)
    ila = IntermediateLevelAttack(attack(), attack(), layer)
    found = ila(network, IMAGES, LABELS, KEYS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.max(np.abs(found - guide)) > 1e-4
    np.testing.assert_allclose(jax.jit(ila)(network, IMAGES[1:4], LABELS[1:4], KEYS[1:4]), found[1:4], atol=1e-6)


def test_the_loss_is_the_projection_of_each_example():
    network = small_networks.classifier('resnet')
    others = np.random.default_rng(2).uniform(0.2, 0.8, (2, *IMAGES.shape)).astype(np.float32)
    base, guide, now = (np.float64(plain_features(network, 'layer2_0', x)) for x in (IMAGES, *others))
    surrogate = FeatureProjection(network, *(features(network, x, 'layer2_0') for x in (IMAGES, others[0])), 'layer2_0')
    found = surrogate(others[1])
    assert found.shape == (6, 1)
    expected = np.sum(((now - base) * (guide - base)).reshape(6, -1), axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_it_has_the_interface_of_an_attack():
    first, second = bim(eps=EPS, steps=3), bim(eps=EPS / 2, steps=4)
    ila = IntermediateLevelAttack(first, second, 'layer1_0')
    assert ila.limits == second.limits
    assert ila.gradient_evaluations == 7
    assert not ila.needs_pool
    assert not ila.targeted
    assert ila.name == 'ila'
    assert hash(ila) == hash(IntermediateLevelAttack(first, second, 'layer1_0'))


def test_one_compilation_for_all_checkpoints():
    network, traces = small_networks.counted('mlp')
    checkpoints = [small_networks.classifier('mlp', seed, network) for seed in (0, 1)]
    ila = IntermediateLevelAttack(attack(), attack(), 'relu1')
    traces.clear()
    first = ila(checkpoints[0], IMAGES, LABELS, KEYS)
    count = len(traces)
    second = ila(checkpoints[1], IMAGES, LABELS, KEYS)
    assert count > 1
    assert len(traces) <= count + 1  # one more for the shape of the logits
    assert np.any(first != second)


def test_both_attacks_get_the_pool_and_keep_their_parts_and_keys():
    network = small_networks.classifier('mlp')
    second = dataclasses.replace(pgd(eps=EPS, steps=1), restarts=2, chunk_size=2)

    def with_pool(given):
        return 0.9 * given.images + 0.1 * given.pool.images[0]

    mixing = transforms.InputTransform('mix', with_pool, copies=3, needs_pool=True)
    ila = IntermediateLevelAttack(attack(transforms=(mixing,)), second, 'relu1')
    assert ila.needs_pool
    assert ila.gradient_evaluations == 2 * 3 + 2
    pool = (IMAGES[:2] ** 2, LABELS[:2])
    one = ila(network, IMAGES, LABELS, jax.random.key(0), pool=pool)
    each = ila(network, IMAGES, LABELS, jax.random.split(jax.random.key(0), 6), pool=pool)
    np.testing.assert_array_equal(one, each)
    assert np.max(np.abs(one - IMAGES)) <= EPS + 1e-6
    with pytest.raises(InputError, match='needs pool='):
        ila(network, IMAGES, LABELS, KEYS)


def test_each_of_the_two_attacks_draws_from_its_own_keys():
    seen = []

    def record(images, keys):
        jax.debug.callback(lambda data: seen.append(np.array(data)), jax.random.key_data(keys))
        return images

    part = attack(transforms=(record,))
    IntermediateLevelAttack(part, part, 'relu1')(small_networks.classifier('mlp'), IMAGES, LABELS, KEYS)
    jax.effects_barrier()
    assert len(seen) == 4
    assert len({tuple(row) for data in seen for row in data.tolist()}) == 4 * 6


def test_surrogate_transforms_act_in_both_attacks():
    network, linbp = small_networks.classifier('mlp'), linear_backprop('fc1')
    found = IntermediateLevelAttack(attack(linbp), attack(linbp), 'relu2')(network, IMAGES, LABELS, KEYS)
    around = IntermediateLevelAttack(attack(), attack(), 'relu2')(linbp(network), IMAGES, LABELS, KEYS)
    np.testing.assert_allclose(found, around, atol=1e-6)
    plain = IntermediateLevelAttack(attack(), attack(), 'relu2')(network, IMAGES, LABELS, KEYS)
    assert np.max(np.abs(found - plain)) > 1e-4


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'layer': 'layer3_0'}, "unknown layer 'layer3_0'; the layers are conv1, bn1, relu1, layer1_0, layer2_0, fc"),
        ({'surrogate': 'function'}, "attack 'ila' needs a Classifier, or a surrogate made of Classifiers, got Partial"),
        ({'surrogate': 'ghost'}, "attack 'ila' needs a surrogate with the same features at every step, got a Ghost"),
        ({'surrogate': 'ensemble'}, "the features of layer 'layer2_0' need a surrogate with one network, got 2"),
    ],
)
def test_arguments_are_checked(change, message):
    network = small_networks.classifier('resnet')
    surrogates = {
        'function': FUNCTION,
        'ghost': ghost_network()(network),
        'ensemble': Ensemble((network, network)),
    }
    given = {'surrogate': network, 'images': IMAGES, 'labels': LABELS, 'key': KEYS} | change
    ila = dataclasses.replace(ILA, layer=given.pop('layer', 'layer2_0'))
    if isinstance(given['surrogate'], str):
        given['surrogate'] = surrogates[given['surrogate']]
    with pytest.raises(InputError, match=message):
        ila(**given)


def test_parts_are_checked():
    targeted = attack(targeted=True)
    for parts in ((targeted, attack()), (attack(), targeted)):
        with pytest.raises(InputError, match="must be an untargeted GradientAttack, got attack 'test'"):
            IntermediateLevelAttack(*parts, 'fc')
    with pytest.raises(InputError, match="first of 'ila' must be an untargeted GradientAttack, got 3"):
        IntermediateLevelAttack(3, attack(), 'fc')
    with pytest.raises(InputError, match="layer of 'ila' must be the name of a layer, got 2"):
        IntermediateLevelAttack(attack(), attack(), 2)
