import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from attacks import ascent
from quick_attacks import slow
from small_networks import EPS, FUNCTION, IMAGES, KEYS, LABELS, attack

from rfn_jax.attacks import bim, pgd
from rfn_jax.attacks.inputs import transforms
from rfn_jax.attacks.intermediate_level import FeatureProjection, IntermediateLevelAttack, features
from rfn_jax.attacks.surrogates.ensembles import Ensemble
from rfn_jax.attacks.surrogates.ghost import ghost_network
from rfn_jax.attacks.surrogates.linear_backprop import linear_backprop
from rfn_jax.core import losses
from rfn_jax.core.errors import InputError

RESNET, MLP = small_networks.classifier('resnet'), small_networks.classifier('mlp')


@functools.cache
def make(layer, first=None, second=None):
    first = first or attack()
    return IntermediateLevelAttack(first, second or first, layer)


def plain_features(network, layer, x):
    """The output of a layer, as Flax captures it."""
    x = (x - small_networks.MEAN) / small_networks.STD
    state = network.module.apply(
        network.variables, x, train=False, capture_intermediates=True, mutable=['intermediates']
    )[1]
    return state['intermediates'][layer]['__call__'][0]


@pytest.mark.parametrize(('kind', 'layer'), [slow('resnet', 'layer1_0'), ('mlp', 'relu1')])
def test_it_follows_the_change_of_the_features(kind, layer):
    network = small_networks.classifier(kind)

    def loss(x):
        return jnp.sum(losses.cross_entropy(network(x), LABELS))

    def projection(x, guide):
        origin = plain_features(network, layer, IMAGES)
        return jnp.sum((plain_features(network, layer, x) - origin) * (plain_features(network, layer, guide) - origin))

    ascend = functools.partial(ascent.ascend, images=IMAGES, norm='l2', eps=EPS, alpha=EPS / 2, steps=2)
    by_loss, by_projection = jax.jit(jax.grad(loss)), jax.jit(jax.grad(projection))
    guide = ascend(lambda x, t: by_loss(x))
    found = make(layer)(network, IMAGES, LABELS, KEYS)
    np.testing.assert_allclose(found, ascend(lambda x, t: by_projection(x, guide)), atol=1e-6)
    assert np.max(np.abs(found - guide)) > 1e-4
    part = jax.jit(make(layer))(network, IMAGES[1:4], LABELS[1:4], KEYS[1:4])
    np.testing.assert_allclose(part, found[1:4], atol=1e-6)
    other = small_networks.classifier(kind, 1, network.module)
    with jax.no_tracing():  # checkpoints share a compilation
        changed = make(layer)(other, IMAGES, LABELS, KEYS)
    assert np.any(changed != found)


def test_the_loss_is_the_projection_of_each_example():
    others = np.random.default_rng(2).uniform(0.2, 0.8, (2, *IMAGES.shape)).astype(np.float32)
    base, guide, now = (np.float64(plain_features(RESNET, 'layer2_0', x)) for x in (IMAGES, *others))
    surrogate = FeatureProjection(RESNET, *(features(RESNET, x, 'layer2_0') for x in (IMAGES, others[0])), 'layer2_0')
    expected = np.sum(((now - base) * (guide - base)).reshape(6, -1), axis=1, keepdims=True)
    np.testing.assert_allclose(surrogate(others[1]), expected, rtol=1e-4, atol=1e-5)


def test_it_has_the_interface_of_an_attack():
    first, second = bim(eps=EPS, steps=3), bim(eps=EPS / 2, steps=4)
    ila = IntermediateLevelAttack(first, second, 'layer1_0')
    assert (ila.name, ila.limits, ila.gradient_evaluations) == ('ila', second.limits, 7)
    assert not ila.needs_pool
    assert not ila.targeted
    assert hash(ila) == hash(IntermediateLevelAttack(first, second, 'layer1_0'))


def test_both_attacks_get_the_pool_and_keep_their_parts_and_keys():
    second = dataclasses.replace(pgd(eps=EPS, steps=1), restarts=2, chunk_size=2)

    def with_pool(given):
        return 0.9 * given.images + 0.1 * given.pool.images[0]

    mixing = transforms.InputTransform('mix', with_pool, copies=3, needs_pool=True)
    ila = make('relu1', attack(transforms=(mixing,)), second)
    assert ila.needs_pool
    assert ila.gradient_evaluations == 2 * 3 + 2
    key, pool = jax.random.key(0), (IMAGES[:2] ** 2, LABELS[:2])
    one, each = (ila(MLP, IMAGES, LABELS, keys, pool=pool) for keys in (key, jax.random.split(key, 6)))
    np.testing.assert_array_equal(one, each)
    assert np.max(np.abs(one - IMAGES)) <= EPS + 1e-6
    with pytest.raises(InputError, match='needs pool='):
        ila(MLP, IMAGES, LABELS, KEYS)


def test_each_of_the_two_attacks_draws_from_its_own_keys():
    seen = []

    def record(images, keys):
        jax.debug.callback(lambda data: seen.append(np.array(data)), jax.random.key_data(keys))
        return images

    make('relu1', attack(transforms=(record,)))(MLP, IMAGES, LABELS, KEYS)
    jax.effects_barrier()
    assert len(seen) == 4
    assert len({tuple(row) for data in seen for row in data.tolist()}) == 4 * 6


@pytest.mark.slow
def test_surrogate_transforms_act_in_both_attacks():
    linbp = linear_backprop('fc1')
    found = make('relu2', attack(linbp))(MLP, IMAGES, LABELS, KEYS)
    np.testing.assert_allclose(found, make('relu2')(linbp(MLP), IMAGES, LABELS, KEYS), atol=1e-6)
    assert np.max(np.abs(found - make('relu2')(MLP, IMAGES, LABELS, KEYS))) > 1e-4


@pytest.mark.parametrize(
    ('surrogate', 'layer', 'message'),
    [
        (RESNET, 'layer3_0', "unknown layer 'layer3_0'; the layers are conv1, bn1, relu1, layer1_0, layer2_0, fc"),
        (FUNCTION, 'fc', "attack 'ila' needs a Classifier, or a surrogate made of Classifiers, got Partial"),
        (ghost_network()(RESNET), 'fc', "'ila' needs a surrogate with the same features at every step, got a Ghost"),
        (Ensemble((RESNET, RESNET)), 'fc', "the features of layer 'fc' need a surrogate with one network, got 2"),
    ],
)
def test_surrogates_and_layers_are_checked(surrogate, layer, message):
    with pytest.raises(InputError, match=message):
        make(layer)(surrogate, IMAGES, LABELS, KEYS)


def test_parts_are_checked():
    targeted = attack(targeted=True)
    for parts in ((targeted, attack()), (attack(), targeted)):
        with pytest.raises(InputError, match="must be an untargeted GradientAttack, got attack 'test'"):
            IntermediateLevelAttack(*parts, 'fc')
    with pytest.raises(InputError, match="first of 'ila' must be an untargeted GradientAttack, got 3"):
        IntermediateLevelAttack(3, attack(), 'fc')
    with pytest.raises(InputError, match="layer of 'ila' must be the name of a layer, got 2"):
        IntermediateLevelAttack(attack(), attack(), 2)
