import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax.attacks.inputs import copies

VALUES = np.random.default_rng(0).normal(size=(7, 3, 2)).astype(np.float32)


@pytest.mark.parametrize('chunk_size', [1, 2, 3, 10])
@pytest.mark.parametrize('count', [1, 6, 7])
def test_mean_over_is_the_mean_whether_or_not_the_chunk_divides_the_count(count, chunk_size):
    def compute(i):
        return {'value': jnp.asarray(VALUES)[i], 'square': jnp.asarray(VALUES)[i, 0] ** 2}

    mean = copies.mean_over(count, compute, chunk_size=chunk_size)
    np.testing.assert_allclose(mean['value'], VALUES[:count].mean(0), atol=1e-6)
    np.testing.assert_allclose(mean['square'], (VALUES[:count, 0] ** 2).mean(0), atol=1e-6)
    assert mean['value'].dtype == jnp.float32


@pytest.mark.parametrize('spoiled', [np.nan, np.inf])
@pytest.mark.parametrize('chunk_size', [2, 3, 10])
def test_values_beyond_the_last_copy_cannot_leak(chunk_size, spoiled):
    count = 5
    beyond = np.concatenate([VALUES[:count], np.full((20, 3, 2), spoiled, np.float32)])
    mean = copies.mean_over(count, lambda i: jnp.asarray(beyond)[i], chunk_size=chunk_size)
    np.testing.assert_allclose(mean, VALUES[:count].mean(0), atol=1e-6)
    # Nor through a gradient, where 0 times infinity would be NaN.
    gradient = jax.grad(lambda x: jnp.sum(copies.mean_over(count, lambda i: x[i], chunk_size=chunk_size)))(beyond)
    np.testing.assert_allclose(gradient[:count], 1 / count, rtol=1e-6)
    np.testing.assert_array_equal(gradient[count:], 0)


def test_a_copy_that_is_nan_is_not_hidden():
    values = VALUES.copy()
    values[3] = np.nan
    assert np.all(np.isnan(copies.mean_over(7, lambda i: jnp.asarray(values)[i], chunk_size=2)))


@pytest.mark.parametrize(('chunk_size', 'together'), [(1, 1), (3, 3), (5, 5), (9, 5)])
def test_no_more_than_a_chunk_is_computed_together(chunk_size, together):
    def compute(i):
        return jnp.sin(jnp.full((11, 13), i, jnp.float32))

    text = str(jax.make_jaxpr(lambda: copies.mean_over(5, compute, chunk_size=chunk_size))())
    sizes = [line.split('= sin')[0].strip() for line in text.splitlines() if '= sin' in line]
    assert [size.split(':')[1] for size in sizes] == [f'f32[{together},11,13]']


@pytest.mark.parametrize('chunk_size', [1, 2])
def test_mean_over_is_the_same_under_jit(chunk_size):
    def mean(values):
        return copies.mean_over(5, lambda i: values[i] * i, chunk_size=chunk_size)

    expected = np.mean([VALUES[i] * i for i in range(5)], axis=0)
    np.testing.assert_allclose(jax.jit(mean)(VALUES), expected, atol=1e-6)
    np.testing.assert_allclose(mean(jnp.asarray(VALUES)), expected, atol=1e-6)
