import dataclasses

import jax
import numpy as np
import pytest

from rfn_jax.attacks import attack as attack_lib
from rfn_jax.attacks import bim, pgd
from rfn_jax.core import sharding
from rfn_jax.data import ImageDataset
from rfn_jax.transfer import craft_images

KEY = jax.random.key(5)
ATTACK = pgd(eps=0.6, step_size=0.2, steps=4, norm='l2')


def logits(weights, images):
    return jax.numpy.tanh(images.reshape(len(images), -1) @ weights[0]) @ weights[1]


def surrogate(seed=0):
    generator = np.random.default_rng(seed)
    weights = [generator.normal(size=shape).astype(np.float32) for shape in ((48, 12), (12, 4))]
    return jax.tree_util.Partial(logits, weights)


@pytest.fixture(scope='module')
def examples():
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(20, 4, 4, 3)).astype(np.uint8)
    labels = generator.integers(4, size=20).astype(np.int32)
    return ImageDataset(images, labels, generator.permutation(500)[:20], tuple('abcd'), 'toy')


@pytest.fixture(scope='module')
def one_device():
    return sharding.data_mesh(jax.devices()[:1])


@pytest.fixture(scope='module')
def expected(examples, one_device):
    return craft_images(ATTACK, surrogate(), examples, KEY, batch_size=64, mesh=one_device)


def test_crafted_images_are_uint8_inside_the_budget(examples, expected):
    assert expected.dtype == np.uint8
    assert expected.shape == examples.images.shape
    change = (expected.astype(np.float64) - examples.images) / 255
    lengths = np.sqrt(np.sum(change**2, axis=(1, 2, 3)))
    assert np.all(lengths <= 0.6 * (1 + 1e-6))
    assert np.all(lengths > 0.3)


@pytest.mark.parametrize(('batch_size', 'devices'), [(3, 8), (8, 1), pytest.param(64, 8, marks=pytest.mark.slow)])
def test_batch_size_and_devices_make_no_difference(batch_size, devices, examples, expected):
    mesh = sharding.data_mesh(jax.devices()[:devices])
    crafted = craft_images(ATTACK, surrogate(), examples, KEY, batch_size=batch_size, mesh=mesh)
    np.testing.assert_array_equal(crafted, expected)


def test_order_makes_no_difference(examples, expected, one_device):
    order = np.random.default_rng(1).permutation(20)
    crafted = craft_images(ATTACK, surrogate(), examples.take(order), KEY, batch_size=64, mesh=one_device)
    np.testing.assert_array_equal(crafted, expected[order])


def test_draws_follow_the_ids_and_the_key(examples, expected, one_device):
    renamed = dataclasses.replace(examples, ids=examples.ids + 1000)
    for data, key in ((renamed, KEY), (examples, jax.random.key(6))):
        crafted = craft_images(ATTACK, surrogate(), data, key, batch_size=64, mesh=one_device)
        assert np.all(np.any(crafted != expected, axis=(1, 2, 3)))


def test_one_compilation_serves_all_batches_and_all_checkpoints(examples, one_device):
    attack, advanced = bim(eps=0.1, steps=2), []
    craft_images(attack, surrogate(0), examples.take(np.arange(8)), KEY, batch_size=8, mesh=one_device)
    compiled = attack_lib._run._cache_size()
    craft_images(attack, surrogate(1), examples, KEY, batch_size=8, mesh=one_device, advance=lambda: advanced.append(1))
    assert attack_lib._run._cache_size() == compiled > 0
    assert len(advanced) == 3  # batches of 8, 8 and a ragged one of 4
