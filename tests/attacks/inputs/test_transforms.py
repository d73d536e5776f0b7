"""What holds for every input transform, and how the engine combines several; comparisons with textbooks are elsewhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfn_jax.attacks import Budget, GradientAttack, steepest
from rfn_jax.attacks import keys as keys_lib
from rfn_jax.attacks.gradients import translation
from rfn_jax.attacks.inputs import blocks, mixing, resizing, scales, shifts, spectrum, transforms
from rfn_jax.core import losses, rng
from rfn_jax.core.errors import InputError

EPS = 8 / 255

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
every = pytest.mark.parametrize('name', TRANSFORMS)


def given(shape, *, copy=1, seed=0, dtype=jnp.float32):
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


def take(inputs, chosen):
    return inputs._replace(
        images=inputs.images[chosen],
        labels=inputs.labels[chosen],
        keys=inputs.keys[chosen],
        base_keys=inputs.base_keys[chosen],
    )


@every
@pytest.mark.parametrize(
    ('shape', 'dtype'),
    [((9, 6, 3), 'float32'), ((7, 7, 1), 'float32'), ((8, 6, 2), 'float16'), ((8, 6, 2), 'bfloat16')],
)
def test_shape_and_type_are_kept(name, shape, dtype):
    inputs = given(shape, dtype=dtype)
    result = apply(name, inputs)
    assert result.shape == (7, *shape)
    assert result.dtype == dtype
    # Only the result is rounded to low precision, not the intermediate values.
    exact = apply(name, inputs._replace(images=inputs.images.astype(jnp.float32)))
    step = 2 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(result.astype(jnp.float32), exact, rtol=step, atol=step)


@every
def test_an_example_does_not_depend_on_the_batch_or_its_order(name):
    inputs = given((8, 6, 2))
    whole = np.asarray(apply(name, inputs))
    order = np.random.default_rng(1).permutation(7)
    np.testing.assert_allclose(apply(name, take(inputs, order)), whole[order], atol=1e-6)
    for i in (0, 5):
        np.testing.assert_allclose(apply(name, take(inputs, np.array([i]))), whole[i : i + 1], atol=1e-6)


@every
def test_jit_changes_nothing(name):
    inputs = given((6, 6, 1))
    np.testing.assert_allclose(TRANSFORMS[name].apply(inputs), apply(name, inputs), atol=1e-6)


@every
def test_the_gradient_is_that_of_an_affine_function_of_the_images(name):
    # For fixed draws, each transform is affine, so the derivative is exactly a difference.
    inputs = given((8, 6, 2))
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
    first, other = given((8, 6, 2)), given((8, 6, 2), seed=1)
    result = apply(name, first)

    def changed(**parts):
        return np.sum(np.any(np.asarray(result != apply(name, first._replace(**parts))), axis=(1, 2, 3)))

    least = (
        3 if name.startswith('input_diversity') else 7
    )  # only some, since the transform is applied with a probability
    assert changed(keys=other.keys, copy=jnp.int32(2)) >= least
    by_step = changed(keys=other.keys, base_keys=other.base_keys)
    if name == 'scale_copies':
        assert by_step == 0
    else:  # two steps may draw the same of few partners or shifts
        assert by_step >= 3


# ---------------------------------------------------------------------------------------------------------------------
# In the engine


def fold(keys, number):
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def noise(images, keys):
    return images + 0.02 * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)


SEVERAL = (mixing.admix(2, 2), noise, shifts.random_shift(1, copies=3))  # 12 combinations


def attack(**parts):
    options = {'steps': 2, 'direction': steepest('l2'), 'step_size': 0.2, 'transforms': SEVERAL} | parts
    return GradientAttack(name='test', limits=Budget(0.5, 'l2'), **options)


@pytest.fixture(scope='module')
def arguments(problem):
    keys = rng.example_keys(jax.random.key(7), problem.ids)
    return problem.surrogate, jnp.asarray(problem.images), problem.labels, keys


@pytest.fixture(scope='module')
def pool(problem):
    generator = np.random.default_rng(5)
    images = generator.uniform(size=(8, *problem.images.shape[1:])).astype(np.float32)
    return transforms.Pool(images, generator.integers(5, size=8).astype(np.int32))


@pytest.fixture(scope='module')
def by_one(arguments, pool):
    return attack()(*arguments, pool=pool)


def test_the_gradient_is_the_mean_over_all_combinations_of_copies(arguments, pool, by_one):
    surrogate, images, labels, keys = arguments
    transforms_ = [transforms.as_transform(t) for t in SEVERAL]
    copies = [t.copies for t in transforms_]
    assert copies == [4, 1, 3]
    assert attack().gradient_evaluations == 2 * 12

    @jax.jit
    def gradient(x, step_keys, number, combination):
        def loss(x):
            for index, (transform, copy) in enumerate(zip(transforms_, combination, strict=True)):
                own = fold(fold(step_keys, keys_lib.COPIES + number), index)
                x = transform.apply(
                    transforms.Input(x, labels, own, fold(step_keys, keys_lib.SHARED + index), copy, pool)
                )
            return jnp.sum(losses.cross_entropy(surrogate(x), labels))

        return jax.grad(loss)(x)

    x = images
    for t in range(2):
        total = np.zeros(images.shape)
        for number in range(12):
            combination = jnp.array([number % 4, 0, number // 4])
            total += gradient(x, fold(keys, t + 1), number, combination)
        length = np.sqrt(np.sum(total**2, axis=(1, 2, 3), keepdims=True))
        change = np.asarray(x) + 0.2 * total / length - images
        length = np.sqrt(np.sum(change**2, axis=(1, 2, 3), keepdims=True))
        x = jnp.clip(images + change * 0.5 / np.maximum(length, 0.5), 0, 1).astype(jnp.float32)
    np.testing.assert_allclose(by_one, x, atol=2e-6)
    assert np.abs(np.asarray(by_one) - images).max() > 0.05


@pytest.mark.parametrize('chunk_size', [2, 5, 12])
def test_the_chunk_size_makes_no_difference(chunk_size, arguments, pool, by_one):
    np.testing.assert_allclose(attack(chunk_size=chunk_size)(*arguments, pool=pool), by_one, atol=1e-6)


def test_the_copies_of_an_example_do_not_depend_on_the_batch(arguments, pool, by_one):
    surrogate, images, labels, keys = arguments
    part = attack(chunk_size=2)(surrogate, images[4:6], labels[4:6], keys[4:6], pool=pool)
    np.testing.assert_allclose(part, by_one[4:6], atol=1e-6)


@every
def test_every_transform_runs_in_an_attack(name, arguments, pool, problem):
    result = attack(transforms=(TRANSFORMS[name],), chunk_size=2, steps=1)(*arguments, pool=pool)
    plain = attack(transforms=(), steps=1)(*arguments)
    assert np.all(np.isfinite(result))
    assert np.all(np.sqrt(np.sum((np.asarray(result) - problem.images) ** 2, axis=(1, 2, 3))) < 0.5 + 1e-5)
    assert np.any(np.abs(np.asarray(result) - plain) > 1e-3)


def test_the_kernel_is_applied_to_the_mean_gradient_before_the_direction(arguments):
    smoothed = attack(
        transforms=(), steps=1, step_size=0.01, direction=optax.chain(translation.translation_kernel(3), steepest('l2'))
    )(*arguments)
    surrogate, images, labels, _ = arguments
    gradient = jax.grad(lambda x: jnp.sum(losses.cross_entropy(surrogate(x), labels)))(images)
    profile = translation.kernel_profile(3, nsig=3.0, kind='gaussian')
    padded = np.pad(np.asarray(gradient, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = sum(profile[i] * profile[j] * padded[:, i : i + 6, j : j + 6] for i in range(3) for j in range(3))
    direction = total / np.sqrt(np.sum(total**2, axis=(1, 2, 3), keepdims=True))
    np.testing.assert_allclose(smoothed, np.clip(images + 0.01 * direction, 0, 1), atol=1e-6)


def test_a_plain_function_of_images_and_keys_is_a_transform_of_one_copy():
    transform = transforms.as_transform(noise)
    assert transform[0] == 'noise'
    assert (transform.copies, transform.needs_pool) == (1, False)
    inputs = given((6, 6, 1))
    np.testing.assert_array_equal(transform.apply(inputs), noise(inputs.images, inputs.keys))
    assert transforms.as_transform(transform) is transform
    with pytest.raises(InputError, match='each of the transforms must be a function or an InputTransform, got 3'):
        transforms.as_transform(3)
