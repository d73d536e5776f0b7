from typing import NamedTuple

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.optim import masks

PARAMS = {
    'conv': {'kernel': 1.0, 'bias': 2.0},
    'norm': {'scale': 3.0, 'bias': 4.0},
    'blocks': [{'kernel': 5.0}, {'bias': 6.0}],
}
PARAMS = jax.tree.map(jnp.asarray, PARAMS)


def kept(mask, params=PARAMS):
    """The parameters that a mask keeps."""
    mask = masks.apply_mask(mask, params, params)
    return sorted({float(leaf) for leaf in jax.tree.leaves(mask)} - {0.0})


def test_the_names():
    assert kept(None) == [1, 2, 3, 4, 5, 6]
    assert kept('no_biases') == [1, 3, 5]
    assert kept('only_normalization') == [3, 4]
    assert kept('no_normalization') == [1, 2, 5, 6]
    assert set(masks.MASKS) == {'no_biases', 'only_normalization', 'no_normalization'}
    for name, function in masks.MASKS.items():
        assert kept(name) == kept(function)


class Pair(NamedTuple):
    scale: jax.Array
    bias: jax.Array


def test_the_names_on_other_trees():
    frozen = flax.core.freeze({**PARAMS, 'blocks': {}})
    for name in masks.MASKS:
        assert kept(name, frozen) == kept(name, {**PARAMS, 'blocks': {}})
    assert kept('only_normalization', [Pair(jnp.float32(1), jnp.float32(2)), {'bias': jnp.float32(3)}]) == [1, 2]
    assert kept('no_biases', [Pair(jnp.float32(1), jnp.float32(2)), jnp.float32(3)]) == [1, 3]
    assert kept('no_biases', jnp.float32(5)) == [5]


def test_only_parameters_next_to_a_scale_are_normalization():
    block = {'scale': jnp.float32(1), 'bias': jnp.float32(2), 'gain': jnp.float32(3), 'dense': {'bias': jnp.float32(4)}}
    assert kept('only_normalization', {'a': block, 'b': {'bias': jnp.float32(5)}}) == [1, 2]


def test_a_name_or_function_must_select_something():
    for mask, name in (('only_normalization', 'only_normalization'), (masks.only_normalization, 'only_normalization')):
        with pytest.raises(ValueError, match=f'^mask {name} selects none of the parameters$'):
            kept(mask, {'dense': {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}})
    with pytest.raises(ValueError, match=r'^mask no_biases selects none'):
        kept('no_biases', {'bias': jnp.ones(2)})
    with pytest.raises(ValueError, match='selects none'):
        kept(lambda params: jax.tree.map(lambda _: False, params))
    assert kept({'conv': False, 'norm': False, 'blocks': False}) == []  # an explicit pytree may select nothing


@pytest.mark.parametrize('name', ['resnet', 'vit'])
def test_the_names_on_the_models(name):
    options = {'resnet': {'stage_sizes': (1,), 'widths': (4,)}, 'vit': {}}[name]
    module = models.MODELS.make(name, num_classes=3, **options)
    images = jnp.zeros((1, 32, 32, 3))
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))['params']
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    found = dict(zip(paths, jax.tree.leaves(masks.only_normalization(params)), strict=True))
    assert {path for path, inside in found.items() if inside} == {
        path for path in paths if any(part in path for part in ('bn', 'norm', 'Norm', 'ln'))
    }
    assert 0 < sum(found.values()) < len(paths)
    biases = dict(zip(paths, jax.tree.leaves(masks.no_biases(params)), strict=True))
    assert all(keep is not path.endswith("['bias']") for path, keep in biases.items())


def test_a_prefix_a_pytree_and_a_function():
    assert kept({'conv': True, 'norm': False, 'blocks': [False, True]}) == [1, 2, 6]
    assert kept({'conv': {'kernel': True, 'bias': False}, 'norm': True, 'blocks': False}) == [1, 3, 4]
    assert kept(lambda params: {'conv': False, 'norm': 'blocks' in params, 'blocks': False}) == [3, 4]
    assert kept({'conv': np.bool_(True), 'norm': jnp.asarray(False), 'blocks': False}) == [1, 2]


def test_masked_out_values_are_not_used():
    params = {'a': jnp.full(2, jnp.nan), 'b': jnp.full(2, 3.0, jnp.bfloat16)}
    found = masks.apply_mask({'a': False, 'b': True}, params, params)
    np.testing.assert_array_equal(found['a'], [0, 0])
    np.testing.assert_array_equal(found['b'], [3, 3])
    assert (found['a'].dtype, found['b'].dtype) == (jnp.float32, jnp.bfloat16)


def test_a_mask_for_other_parameters():
    with pytest.raises(ValueError, match='conv'):
        kept({'convolution': True, 'norm': True, 'blocks': True})


def test_a_wrong_mask():
    with pytest.raises(errors.InputError, match="unknown mask 'no_norm'; did you mean 'no_normalization'"):
        masks.check_mask('no_norm')
    for wrong in (True, jnp.asarray(True), {'a': 1}, {'a': 'no_biases'}, {'a': np.ones(2)}, [0.5], 3):
        with pytest.raises(TypeError, match=r'mask must be a name \(no_biases, .*\), a pytree of booleans'):
            masks.check_mask(wrong)
    for right in (None, {'a': True, 'b': [np.bool_(False)]}, np.array([True]), lambda params: params, 'no_biases'):
        masks.check_mask(right)
