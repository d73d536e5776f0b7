import collections
import itertools

import jax
import numpy as np
import pytest
import small_networks
from attacks.ascent import fold
from quick_attacks import slow
from small_networks import IMAGES, KEYS, LABELS, attack, logits_of

from rfn_jax.attacks.surrogates.ensembles import Ensemble
from rfn_jax.attacks.surrogates.ghost import ghost_network
from rfn_jax.core.errors import InputError
from rfn_jax.models import hooks

RESNET = small_networks.classifier('resnet')


def largest_change(found, other):
    """The largest difference of each example."""
    return np.max(np.abs(np.subtract(found, other)), axis=1)


def plain_ghost(network, kind, image, key, scale, rate):
    """The ghost network of one example; hooks are numbered in the order in which they are called."""
    numbers = itertools.count()

    def keep(x):
        number = jax.random.fold_in(key, next(numbers)) if scale else None
        return x * jax.random.uniform(number, (), minval=1 - scale, maxval=1 + scale) if scale else x

    def relu(x):
        if not rate:
            return jax.nn.relu(x)
        kept = jax.random.bernoulli(jax.random.fold_in(key, next(numbers)), 1 - rate, x.shape[1:])
        return jax.nn.relu(x) * kept / (1 - rate)

    if kind == 'vit':
        return small_networks.vit(network, image[None], keep=keep)[0]
    return small_networks.resnet(network, image[None], keep=keep, relu=relu)[0]


@pytest.mark.parametrize(
    ('kind', 'scale', 'rate'),
    [('resnet', 0.22, 0), ('resnet', 0, 0.3), ('resnet', 0.5, 0.2), ('resnet', 0.0, 0.0), slow('vit', 0.4, 0.0)],
)
def test_it_is_the_ghost_network_of_each_example(kind, scale, rate):
    network = small_networks.classifier(kind)
    found = logits_of(ghost_network(scale, rate)(network), IMAGES[:3], KEYS[:3])
    one = jax.jit(lambda image, key: plain_ghost(network, kind, image, key, scale, rate))
    expected = [one(image, key) for image, key in zip(IMAGES[:3], KEYS[:3], strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.all((largest_change(found, network(IMAGES[:3])) > 1e-3) == (scale + rate > 0))


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['resnet', 'vit'])
def test_results_do_not_depend_on_the_batch(kind):
    ghost = ghost_network(0.5, 0.2)(small_networks.classifier(kind))
    whole = logits_of(ghost)
    np.testing.assert_allclose(logits_of(ghost, IMAGES[2:5], KEYS[2:5]), whole[2:5], atol=1e-5)
    assert np.all(largest_change(logits_of(ghost, IMAGES, KEYS[::-1]), whole) > 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'activations'),
    [
        ('mobilenet_v3_small', {'HardSwish': 5, 'Relu': 1}),
        ('efficientnet', {'Silu': 5}),
        ('mobilenet_v2', {'Relu6': 6}),
    ],
)
def test_every_kind_of_activation_is_dropped(kind, activations):
    names = []

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

    found = activations_of(ghost_network(0.0, 0.25)(small_networks.classifier(kind)))
    assert collections.Counter(names) == activations
    for before, after in found:
        kept = np.abs(after) > 0
        assert 0.5 < np.mean(kept[np.abs(before) > 1e-6]) < 0.95
        np.testing.assert_allclose(after, np.where(kept, before / 0.75, 0), atol=1e-5)


def test_members_of_an_ensemble_are_eroded_separately():
    ghost = ghost_network(0.3)
    twice = logits_of(ghost(Ensemble((RESNET, RESNET), 'losses')))
    assert np.all(largest_change(*twice) > 1e-4)
    np.testing.assert_allclose(twice[0], logits_of(ghost(RESNET)), atol=1e-6)
    apart = logits_of(Ensemble((ghost(RESNET), ghost(RESNET)), 'losses'))
    assert np.all(largest_change(*apart) > 1e-4)
    np.testing.assert_allclose(apart[1], logits_of(ghost(RESNET), IMAGES, fold(KEYS, 1)), atol=1e-6)


def test_a_ghost_of_a_ghost_has_its_own_keys():
    inner = ghost_network(0.3)(RESNET)
    only = logits_of(inner, IMAGES, fold(KEYS, 0))
    np.testing.assert_allclose(logits_of(ghost_network(0.0)(inner)), only, atol=1e-6)
    assert np.all(largest_change(logits_of(ghost_network(0.2)(inner)), only) > 1e-4)


@pytest.mark.parametrize(('kind', 'options'), [('vgg', {}), ('mlp', {'skip_scale': 0.5})])
def test_a_network_with_nothing_to_erode_is_refused(kind, options):
    with pytest.raises(InputError, match=r'ghost_network with skip_scale 0\.\d+ and dropout 0 finds nothing to erode'):
        attack(ghost_network(**options))(small_networks.classifier(kind), IMAGES, LABELS, KEYS)
