import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from small_networks import IMAGES, KEYS, LABELS, attack

from rfn_jax.attacks.surrogates.ensembles import Ensemble
from rfn_jax.attacks.surrogates.ghost import ghost_network
from rfn_jax.core.errors import InputError
from rfn_jax.models import hooks


def fold(keys, number):
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def plain_ghost(network, images, keys, scale, rate):
    """The ghost networks, one example at a time; hooks are numbered in the order in which they are called."""
    stem, blocks, head = small_networks.resnet_parts(network)

    def one(image, key):
        counter = iter(range(100))

        def draw(name, *shape):
            number = jax.random.fold_in(key, next(counter))
            if name == 'skip':
                return jax.random.uniform(number, (), minval=1 - scale, maxval=1 + scale)
            return jax.random.bernoulli(number, 1 - rate, shape[1:])

        def dropped(x):
            return x * draw('mask', *x.shape) / (1 - rate) if rate else x

        x = dropped(stem(image[None]))
        for branch, skip, after in blocks:
            factor = draw('skip') if scale else 1.0
            y = branch(x, relu=lambda x: dropped(jax.nn.relu(x)))
            x = dropped(after(factor * skip(x) + y))
        return head(x)[0]

    return jnp.stack([one(image, key) for image, key in zip(images, keys, strict=True)])


@pytest.mark.parametrize(('scale', 'rate'), [(0.22, 0.0), (0.0, 0.3), (0.5, 0.2)])
def test_it_is_the_ghost_network_of_each_example(scale, rate):
    network = small_networks.classifier('resnet')
    found = small_networks.logits_of(ghost_network(scale, rate)(network), IMAGES[:3], KEYS[:3])
    expected = jax.jit(lambda x, k: plain_ghost(network, x, k, scale, rate))(IMAGES[:3], KEYS[:3])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.all(np.max(np.abs(found - network(IMAGES[:3])), axis=1) > 1e-3)


def test_without_erosion_it_is_the_surrogate():
    network = small_networks.classifier('resnet')
    found = small_networks.logits_of(ghost_network(0.0, 0.0)(network))
    np.testing.assert_allclose(found, network(IMAGES), atol=1e-6)


@pytest.mark.parametrize('kind', ['resnet', 'vit'])
def test_results_do_not_depend_on_the_batch(kind):
    ghost = ghost_network(0.3, 0.2)(small_networks.classifier(kind))
    whole = small_networks.logits_of(ghost)
    np.testing.assert_allclose(small_networks.logits_of(ghost, IMAGES[2:5], KEYS[2:5]), whole[2:5], atol=1e-5)
    other = small_networks.logits_of(ghost, IMAGES, KEYS[::-1])
    assert np.all(np.max(np.abs(other - whole), axis=1) > 1e-4)


def test_factors_are_uniform_and_independent_of_each_other():
    # Where branches give 0, a block with two sums multiplies its input with the product of two factors.
    network = small_networks.classifier('vit')
    silent = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if path[-2].key in ('out', 'fc2') else leaf, network.variables
    )
    p = silent['params']
    ghost = ghost_network(0.4)(network.replace(variables=silent))
    keys = jax.random.split(jax.random.key(0), 4000)
    images = np.broadcast_to(IMAGES[:1], (4000, 6, 6, 3))

    @jax.jit
    def factors(keys):
        with hooks.outputs('block0') as found, hooks.outputs('patch_embedding') as first:
            ghost.at_step(images, keys, 0)
        start = first[0].reshape(4000, -1, 4) + p['positions']
        return (found[0] / start).reshape(4000, -1)

    product = np.asarray(factors(keys))
    np.testing.assert_allclose(product, product[:, :1] * np.ones_like(product), rtol=1e-3)  # one for all features
    values = product[:, 0]
    assert values.min() > 0.6**2 - 1e-3
    assert values.max() < 1.4**2 + 1e-3
    variance = 0.8**2 / 12
    assert values.mean() == pytest.approx(1, abs=5 * np.sqrt(2 * variance / 4000))
    assert values.var() == pytest.approx(
        2 * variance + variance**2, rel=0.1
    )  # the variance of a product of two independent factors


def test_dropout_keeps_the_mean_of_activations():
    network = small_networks.classifier('mlp')
    keys = jax.random.split(jax.random.key(0), 4000)
    images = np.broadcast_to(IMAGES[:1], (4000, 6, 6, 3))
    ghost = ghost_network(0.0, 0.25)(network)

    @jax.jit
    def activations(keys):
        with hooks.outputs('relu1') as found, hooks.outputs('bn1') as before:
            ghost.at_step(images, keys, 0)
        return found[0], jax.nn.relu(before[0][0])

    found, expected = map(np.asarray, activations(keys))
    assert np.all(np.isclose(found, 0) | np.isclose(found, expected / 0.75, rtol=1e-5))
    alive = expected > 0
    assert np.any(alive)
    kept = np.mean(found[:, alive] > 0, axis=0)
    np.testing.assert_allclose(kept, 0.75, atol=5 * np.sqrt(0.75 * 0.25 / 4000))


@pytest.mark.parametrize(
    ('kind', 'activations'),
    [
        ('mobilenet_v3_small', {'HardSwish': 5, 'Relu': 1}),
        ('efficientnet', {'Silu': 5}),
        ('mobilenet_v2', {'Relu6': 6}),
    ],
)
def test_every_kind_of_activation_is_dropped(kind, activations):
    network, names = small_networks.classifier(kind), []

    @jax.jit
    def activations_of(ghost):
        found = []

        def keep(call, module, x):
            y = call(x)
            names.append(type(module).__name__)
            found.append((module.function(x), y))
            return y

        with hooks.intercept(hooks.Activation, keep):
            ghost.at_step(IMAGES, KEYS, 0)
        return found

    found = activations_of(ghost_network(0.0, 0.25)(network))
    assert collections.Counter(names) == activations
    for before, after in found:
        alive = np.abs(before) > 1e-6
        kept = np.abs(after) > 0
        assert 0.5 < np.mean(kept[alive]) < 0.95
        np.testing.assert_allclose(after, np.where(kept, before / 0.75, 0), atol=1e-5)


def test_members_of_an_ensemble_are_eroded_separately():
    network = small_networks.classifier('resnet')
    ghost = ghost_network(0.3)
    twice = small_networks.logits_of(ghost(Ensemble((network, network), 'losses')), IMAGES, KEYS)
    assert np.all(np.max(np.abs(twice[0] - twice[1]), axis=1) > 1e-4)
    np.testing.assert_allclose(twice[0], small_networks.logits_of(ghost(network)), atol=1e-6)
    apart = small_networks.logits_of(Ensemble((ghost(network), ghost(network)), 'losses'), IMAGES, KEYS)
    assert np.all(np.max(np.abs(apart[0] - apart[1]), axis=1) > 1e-4)
    np.testing.assert_allclose(apart[1], small_networks.logits_of(ghost(network), IMAGES, fold(KEYS, 1)), atol=1e-6)


def test_a_ghost_of_a_ghost_has_its_own_keys():
    network = small_networks.classifier('resnet')
    inner, outer = ghost_network(0.3), ghost_network(0.2)
    found = small_networks.logits_of(outer(inner(network)))
    only = small_networks.logits_of(inner(network), IMAGES, fold(KEYS, 0))
    np.testing.assert_allclose(small_networks.logits_of(ghost_network(0.0)(inner(network))), only, atol=1e-6)
    assert np.all(np.max(np.abs(found - only), axis=1) > 1e-4)


@pytest.mark.parametrize(('kind', 'options'), [('vgg', {}), ('mlp', {'skip_scale': 0.5}), ('densenet', {})])
def test_a_network_with_nothing_to_erode_is_refused(kind, options):
    with pytest.raises(InputError, match=r'ghost_network with skip_scale 0\.\d+ and dropout 0 finds nothing to erode'):
        attack(ghost_network(**options))(small_networks.classifier(kind), IMAGES, LABELS, KEYS)
