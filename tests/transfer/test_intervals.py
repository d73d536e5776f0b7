import math

import numpy as np
import pytest

from rfn_jax.transfer import bootstrap_mean, wilson

Z = 1.959963984540054  # the 97.5 % point of the normal distribution


@pytest.mark.parametrize(('successes', 'n'), [(0, 1), (1, 1), (0, 20), (3, 10), (500, 1000), (999, 1000), (7, 7)])
def test_wilson_equals_its_closed_formula(successes, n):
    p = successes / n
    center = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    assert wilson(successes, n) == pytest.approx((max(center - half, 0), min(center + half, 1)), abs=1e-9)


@pytest.mark.parametrize(
    ('successes', 'n', 'low', 'high'),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_published_values(successes, n, low, high):
    # Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 1998, table I, method 3.
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def bernoulli(p, shape, seed=0):
    return (np.random.default_rng(seed).uniform(size=shape) < p).astype(np.float64)


def test_bootstrap_equals_one_that_draws_rows_and_columns_one_by_one():
    values = bernoulli(np.array([[0.2], [0.5], [0.7]]), (3, 40))
    generator = np.random.default_rng(1)
    means = [
        values[np.ix_(generator.integers(3, size=3), generator.integers(40, size=40))].mean() for _ in range(10_000)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    assert bootstrap_mean(values) == pytest.approx((low, high), abs=0.015)
    assert bootstrap_mean(values) == bootstrap_mean(values)  # the same at every call
    assert high - low > 0.3  # the tolerance is small compared with the interval


def test_bootstrap_is_wider_when_rows_differ():
    row = bernoulli(0.5, (1, 200))
    alike = np.repeat(row, 4, axis=0)
    shifted = alike + np.array([[-0.3], [-0.1], [0.1], [0.3]])
    low, high = bootstrap_mean(alike)
    wide_low, wide_high = bootstrap_mean(shifted)
    assert alike.mean() == pytest.approx(shifted.mean())
    assert wide_high - wide_low > 2 * (high - low)
    assert (low, high) == pytest.approx(bootstrap_mean(row), abs=0.005)  # the same images: more seeds add nothing


def test_bootstrap_of_constant_values_has_no_width():
    assert bootstrap_mean(np.full((3, 20), 0.25)) == pytest.approx((0.25, 0.25))


@pytest.mark.parametrize(('rows', 'columns'), [(1, 60), (10, 60)])
def test_bootstrap_covers_the_true_mean_as_often_as_it_says(rows, columns):
    # Rows and columns have effects of their own, as seeds and images do.
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        row_effects = generator.normal(size=(rows, 1)) if rows > 1 else 0.0
        values = row_effects + 2 * generator.normal(size=(1, columns)) + generator.normal(size=(rows, columns))
        low, high = bootstrap_mean(values, resamples=400)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.995
