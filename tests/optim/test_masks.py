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


class Pair(NamedTuple):
    scale: jax.Array
    bias: jax.Array


PAIR, THREE = Pair(jnp.float32(1), jnp.float32(2)), jnp.float32(3)
FROZEN = flax.core.freeze({**PARAMS, 'blocks': {}})


@pytest.mark.parametrize(
    ('mask', 'params', 'expected'),
    [
        (None, PARAMS, [1, 2, 3, 4, 5, 6]),
        ('no_biases', PARAMS, [1, 3, 5]),
        ('only_normalization', PARAMS, [3, 4]),
        ('no_normalization', PARAMS, [1, 2, 5, 6]),
        ('no_biases', FROZEN, [1, 3]),
        ('no_normalization', FROZEN, [1, 2]),
        ('only_normalization', [PAIR, {'bias': THREE}], [1, 2]),
        ('no_biases', [PAIR, THREE], [1, 3]),
        ('no_biases', jnp.float32(5), [5]),
        (
            'only_normalization',
            {'a': {**PAIR._asdict(), 'gain': THREE, 'dense': {'bias': THREE}}, 'bias': THREE},
            [1, 2],
        ),
        ({'conv': True, 'norm': False, 'blocks': [False, True]}, PARAMS, [1, 2, 6]),
        ({'conv': {'kernel': True, 'bias': False}, 'norm': True, 'blocks': False}, PARAMS, [1, 3, 4]),
        (lambda params: {'conv': False, 'norm': 'blocks' in params, 'blocks': False}, PARAMS, [3, 4]),
        ({'conv': np.bool_(True), 'norm': jnp.asarray(False), 'blocks': False}, PARAMS, [1, 2]),
        ({'conv': False, 'norm': False, 'blocks': False}, PARAMS, []),  # an explicit pytree may select nothing
    ],
)
def test_what_a_mask_keeps(mask, params, expected):
    assert kept(mask, params) == expected
    if isinstance(mask, str):
        assert kept(masks.MASKS[mask], params) == expected


@pytest.mark.parametrize(
    ('mask', 'params', 'message'),
    [
        ('only_normalization', {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}, '^mask only_normalization selects none'),
        (masks.only_normalization, {'kernel': jnp.ones(2)}, '^mask only_normalization selects none of the parameters$'),
        ('no_biases', {'bias': jnp.ones(2)}, '^mask no_biases selects none'),
        (lambda params: jax.tree.map(lambda _: False, params), PARAMS, 'selects none'),
        ({'convolution': True, 'norm': True, 'blocks': True}, PARAMS, 'conv'),  # of other parameters
    ],
)
def test_a_name_or_function_must_select_something_and_a_pytree_must_fit(mask, params, message):
    with pytest.raises(ValueError, match=message):
        kept(mask, params)


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


def test_masked_out_values_are_not_used():
    params = {'a': jnp.full(2, jnp.nan), 'b': jnp.full(2, 3.0, jnp.bfloat16)}
    found = masks.apply_mask({'a': False, 'b': True}, params, params)
    np.testing.assert_array_equal(found['a'], [0, 0])
    np.testing.assert_array_equal(found['b'], [3, 3])
    assert (found['a'].dtype, found['b'].dtype) == (jnp.float32, jnp.bfloat16)


def test_a_wrong_mask():
    with pytest.raises(errors.InputError, match="unknown mask 'no_norm'; did you mean 'no_normalization'"):
        masks.check_mask('no_norm')
    assert set(masks.MASKS) == {'no_biases', 'only_normalization', 'no_normalization'}
    for wrong in (True, jnp.asarray(True), {'a': 1}, {'a': 'no_biases'}, {'a': np.ones(2)}, [0.5], 3):
        with pytest.raises(TypeError, match=r'mask must be a name \(no_biases, .*\), a pytree of booleans'):
            masks.check_mask(wrong)
    for right in (None, {'a': True, 'b': [np.bool_(False)]}, np.array([True]), lambda params: params, 'no_biases'):
        masks.check_mask(right)
