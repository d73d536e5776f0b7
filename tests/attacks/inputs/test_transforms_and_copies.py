"""What holds for every input transform, and how the engine combines copies; comparisons with textbooks are elsewhere."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attacks import ascent
from attacks.ascent import fold
from quick_attacks import slow

from rfn_jax.attacks import Budget, GradientAttack, steepest
from rfn_jax.attacks import keys as keys_lib
from rfn_jax.attacks.gradients.translation import translation_kernel
from rfn_jax.attacks.inputs import blocks, copies, mixing, resizing, scales, shifts, spectrum, transforms
from rfn_jax.core import losses
from rfn_jax.core.errors import InputError

TRANSFORMS = {
    'input_diversity': resizing.input_diversity(1.5, 0.7),
    'input_diversity_smaller': resizing.input_diversity(0.6, 0.7),
    'input_diversity_nearest': resizing.input_diversity(1.5, 0.7, method='nearest'),
    'random_shift': shifts.random_shift(2, copies=4),
    'scale_copies': scales.scale_copies(4),
    'admix': mixing.admix(2, 2),
    'spectrum_simulation': spectrum.spectrum_simulation(4),
    'spectrum_simulation_through': spectrum.spectrum_simulation(4, gradient='images'),
    'block_shuffle_rotate': blocks.block_shuffle_rotate(4, 2),
}
COSTLY = {'input_diversity_smaller', 'input_diversity_nearest', 'spectrum_simulation_through'}
every = pytest.mark.parametrize('name', [slow(name) if name in COSTLY else name for name in TRANSFORMS])
CHEAP = ('scale_copies', 'random_shift')


def given(shape=(8, 6, 2), *, copy=1, seed=0, dtype=jnp.float32):
    """An input of seven images of a shape, with a pool of five."""
    generator = np.random.default_rng(seed)
    image_key, base_key = jax.random.split(jax.random.key(seed))
    pool_images = jnp.asarray(generator.uniform(size=(5, *shape)), jnp.float32)
    return transforms.Input(
        images=jnp.asarray(generator.uniform(size=(7, *shape)), dtype),
        labels=jnp.arange(7, dtype=jnp.int32) % 3,
        keys=jax.random.split(image_key, 7),
        base_keys=jax.random.split(base_key, 7),
        copy=jnp.int32(copy),
        pool=transforms.Pool(pool_images, jnp.arange(5, dtype=jnp.int32) % 3),
    )


@functools.partial(jax.jit, static_argnums=0)
def apply(name, inputs):
    return TRANSFORMS[name].apply(inputs)


DEFAULTS = {
    resizing.input_diversity: {'rate': 1.1, 'probability': 0.5, 'method': 'bilinear'},
    shifts.random_shift: {'max_shift': 2, 'copies': 1},
    scales.scale_copies: {'copies': 5},
    mixing.admix: {'mixes': 3, 'scales': 5, 'portion': 0.2, 'other_classes': True},
    spectrum.spectrum_simulation: {'copies': 20, 'rho': 0.5, 'sigma': 16 / 255, 'gradient': 'transformed'},
    blocks.block_shuffle_rotate: {'copies': 20, 'blocks': 3, 'max_angle': 24.0},
    translation_kernel: {'size': 15, 'nsig': 3.0, 'kind': 'gaussian'},
}


def test_defaults_are_those_of_papers_and_other_libraries():
    for factory, defaults in DEFAULTS.items():
        assert {p.name: p.default for p in inspect.signature(factory).parameters.values()} == defaults


def test_only_admix_needs_a_pool_and_the_copies_are_counted():
    made = [factory() for factory in DEFAULTS if factory is not translation_kernel]
    assert [transform.copies for transform in made] == [1, 1, 5, 15, 20, 20]
    assert [transform.name for transform in made if transform.needs_pool] == ['admix']


@every
@pytest.mark.parametrize('shape', [(9, 6, 3), (7, 7, 1)])
def test_shape_is_kept(name, shape):
    result = jax.eval_shape(TRANSFORMS[name].apply, given(shape))
    assert (result.shape, result.dtype) == ((7, *shape), jnp.float32)


@pytest.mark.parametrize('name', [slow(n) if n.startswith(('block', 'input', 'spectrum')) else n for n in TRANSFORMS])
@pytest.mark.parametrize('dtype', [slow('float16'), 'bfloat16'])
def test_only_the_result_is_rounded_to_low_precision_and_not_the_intermediate_values(name, dtype):
    inputs = given(dtype=dtype)
    result = apply(name, inputs)
    assert result.dtype == dtype
    exact = apply(name, inputs._replace(images=inputs.images.astype(jnp.float32)))
    step = 2 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(result.astype(jnp.float32), exact, rtol=step, atol=step)


@every
def test_an_example_does_not_depend_on_the_batch_or_its_order(name):
    inputs = given()
    whole = np.asarray(apply(name, inputs))
    per_example = ('images', 'labels', 'keys', 'base_keys')
    for rows in (np.random.default_rng(1).permutation(7), np.array([5, 5, 1, 0, 1, 0, 5])):
        taken = inputs._replace(**{field: getattr(inputs, field)[rows] for field in per_example})
        np.testing.assert_allclose(apply(name, taken), whole[rows], atol=1e-6)


@pytest.mark.parametrize('name', [n if n in CHEAP else slow(n) for n in TRANSFORMS])
def test_jit_changes_nothing(name):
    np.testing.assert_allclose(TRANSFORMS[name].apply(given()), apply(name, given()), atol=1e-6)


@every
def test_the_gradient_is_that_of_an_affine_function_of_the_images(name):
    # For fixed draws, each transform is affine, so the derivative is exactly a difference.
    inputs = given()
    generator = np.random.default_rng(2)
    change, cotangent = (jnp.asarray(generator.normal(size=inputs.images.shape), jnp.float32) for _ in range(2))

    def transformed(images):
        return apply(name, inputs._replace(images=images))

    value, pull = jax.vjp(transformed, inputs.images)
    gradient = pull(cotangent)[0]
    assert gradient.shape == inputs.images.shape
    assert np.all(np.isfinite(gradient))
    if name == 'spectrum_simulation':  # the gradient at the transformed image is taken for that at the image
        np.testing.assert_array_equal(gradient, cotangent)
        return
    difference = transformed(inputs.images + change) - value
    by_difference = np.sum(np.asarray(cotangent, np.float64) * difference, axis=(1, 2, 3))
    by_gradient = np.sum(np.asarray(gradient, np.float64) * change, axis=(1, 2, 3))
    np.testing.assert_allclose(by_gradient, by_difference, atol=1e-4)
    assert np.all(np.abs(by_gradient) > 1e-3)


@every
def test_draws_are_new_for_every_step_and_copy(name):
    first, other = given(), given(seed=1)
    result = apply(name, first)

    def changed(**parts):
        return np.sum(np.any(np.asarray(result != apply(name, first._replace(**parts))), axis=(1, 2, 3)))

    least = 3 if name.startswith('input_diversity') else 7  # which is applied with a probability
    assert changed(keys=other.keys, copy=jnp.int32(2)) >= least
    by_step = changed(keys=other.keys, base_keys=other.base_keys)
    if name == 'scale_copies':
        assert by_step == 0
    else:  # two steps may draw the same of few partners or shifts
        assert by_step >= 3


def noise(images, keys):
    return images + 0.02 * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)


SEVERAL = (mixing.admix(2, 2), noise, shifts.random_shift(1, copies=3))  # 12 combinations


def attack(**parts):
    options = {'steps': 2, 'direction': steepest('l2'), 'step_size': 0.2, 'transforms': SEVERAL} | parts
    return GradientAttack(name='test', limits=Budget(0.5, 'l2'), **options)


@pytest.fixture(scope='module')
def pool(problem):
    generator = np.random.default_rng(5)
    images = generator.uniform(size=(8, *problem.images.shape[1:])).astype(np.float32)
    return transforms.Pool(images, generator.integers(5, size=8).astype(np.int32))


@pytest.fixture(scope='module')
def by_one(problem, pool):
    return attack()(*problem.arguments, pool=pool)


def test_the_gradient_is_the_mean_over_all_combinations_of_copies(problem, pool, by_one):
    surrogate, images, labels, keys = problem.arguments
    transforms_ = [transforms.as_transform(t) for t in SEVERAL]
    assert [t.copies for t in transforms_] == [4, 1, 3]
    assert attack().gradient_evaluations == 2 * 12

    @jax.jit
    def gradient(x, step_keys, number, combination):
        def loss(x):
            for index, (transform, copy) in enumerate(zip(transforms_, combination, strict=True)):
                own, shared = fold(step_keys, keys_lib.COPIES + number, index), fold(step_keys, keys_lib.SHARED + index)
                x = transform.apply(transforms.Input(x, labels, own, shared, copy, pool))
            return jnp.sum(losses.cross_entropy(surrogate(x), labels))

        return jax.grad(loss)(x)

    def mean_gradient(x, t):
        combinations = [(number, jnp.array([number % 4, 0, number // 4])) for number in range(12)]
        return sum(np.float64(gradient(x, fold(keys, t + 1), *combination)) for combination in combinations) / 12

    expected = ascent.ascend(mean_gradient, images, norm='l2', eps=0.5, alpha=0.2, steps=2)
    np.testing.assert_allclose(by_one, expected, atol=2e-6)
    assert np.abs(by_one - images).max() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize('chunk_size', [5, 12])
def test_the_chunk_size_makes_no_difference(chunk_size, problem, pool, by_one):
    np.testing.assert_allclose(attack(chunk_size=chunk_size)(*problem.arguments, pool=pool), by_one, atol=1e-6)


@pytest.mark.slow
def test_the_copies_of_an_example_do_not_depend_on_the_batch(problem, pool, by_one):
    surrogate, images, labels, keys = problem.arguments
    part = attack(chunk_size=2)(surrogate, images[4:6], labels[4:6], keys[4:6], pool=pool)
    np.testing.assert_allclose(part, by_one[4:6], atol=1e-6)


def test_a_plain_function_of_images_and_keys_is_a_transform_of_one_copy():
    transform = transforms.as_transform(noise)
    assert transform[0] == 'noise'
    assert (transform.copies, transform.needs_pool) == (1, False)
    inputs = given((6, 6, 1))
    np.testing.assert_array_equal(transform.apply(inputs), noise(inputs.images, inputs.keys))
    assert transforms.as_transform(transform) is transform
    with pytest.raises(InputError, match='each of the transforms must be a function or an InputTransform, got 3'):
        transforms.as_transform(3)


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


@pytest.mark.parametrize(('chunk_size', 'spoiled'), [(2, np.nan), (3, np.inf), (10, np.nan)])
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
