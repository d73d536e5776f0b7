"""What GoogLeNet and Inception v3 have in common."""

import flax.linen as nn
import pytest
from branched import network, params_of, trace


@pytest.mark.parametrize(('name', 'size', 'count'), [('googlenet', 15, 57 + 2), ('inception_v3', 299, 94 + 2)])
def test_normalizations_have_the_epsilon_of_tensorflow(name, size, count):
    _, _, calls = trace(network(name), size, size, True)
    norms = [module for module, _ in calls if isinstance(module, nn.BatchNorm)]
    assert len(norms) == count
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-3, 0.9)}


@pytest.mark.parametrize('name', ['googlenet', 'inception_v3'])
def test_width_scales_all_channels(name):
    full, half = (params_of(network(name, width=width)) for width in (1.0, 0.5))
    for path, leaf in full.items():
        fixed = 2 if leaf.ndim == 4 else 0  # rows and columns
        expected = [n if axis < fixed or n in (3, 5) else n // 2 for axis, n in enumerate(leaf.shape)]
        assert list(half[path].shape) == expected, path
