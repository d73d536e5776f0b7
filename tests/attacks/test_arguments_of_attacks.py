import jax
import numpy as np
import pytest

from rfn_jax.attacks import admix, arguments, bim
from rfn_jax.core.errors import InputError, RunError

BIM = bim(steps=2)


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        (np.full((2, 6, 6, 3), -0.01, np.float32), r'images must be in \[0, 1\] without NaN, got values from -0\.01'),
        (np.full((2, 6, 6, 3), 255.0, np.float32), r'images must be in \[0, 1\] without NaN, got .* to 255'),
        (np.full((2, 6, 6, 3), np.nan, np.float32), r'images must be in \[0, 1\] without NaN, got values from nan'),
        (np.full((2, 6, 6, 3), 200, np.uint8), r'got uint8 \(2, 6, 6, 3\); divide uint8 images by 255'),
        (np.full((6, 6, 3), 0.5, np.float32), r'images must be floats \[B, H, W, C\].*got float32 \(6, 6, 3\)'),
    ],
)
def test_images_are_checked(images, message, problem):
    with pytest.raises(InputError, match=message):
        BIM(problem.surrogate, images, np.zeros(2, np.int32), jax.random.key(0))


def test_one_nan_among_the_images_is_found(problem):
    images = problem.images.copy()
    images[3, 2, 1, 0] = np.nan
    with pytest.raises(InputError, match='without NaN'):
        BIM(problem.surrogate, images, problem.labels, jax.random.key(0))


@pytest.mark.parametrize('attack', [BIM, admix(steps=2)], ids=lambda attack: attack.name)
def test_concrete_images_may_be_used_inside_a_function_under_jit(attack, problem):
    pool = {'pool': (problem.images, problem.labels)} if attack.needs_pool else {}

    def run(key):
        return attack(problem.surrogate, problem.images, problem.labels, key, **pool)

    np.testing.assert_array_equal(jax.jit(run)(jax.random.key(0)), run(jax.random.key(0)))


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        ([0, 5], r'labels must be in \[0, 5\), the classes of the surrogate, got 5'),
        ([-1, 0], r'labels must be in \[0, 5\), the classes of the surrogate, got -1'),
        ([0.0, 1.0], r'labels must be integers \[2\], got float32 \(2,\)'),
        ([0, 1, 2], r'labels must be integers \[2\], got int32 \(3,\)'),
        ([[0], [1]], r'labels must be integers \[2\], got int32 \(2, 1\)'),
    ],
)
def test_labels_are_checked(labels, message, problem):
    with pytest.raises(InputError, match=message):
        BIM(problem.surrogate, problem.images[:2], np.array(labels), jax.random.key(0))


def test_the_number_of_keys_is_checked(problem):
    with pytest.raises(InputError, match=r'one for each of the 14 examples, got \(13,\)'):
        BIM(problem.surrogate, problem.images, problem.labels, jax.random.split(jax.random.key(0), 13))


@pytest.mark.parametrize('count', [2, 3])
def test_an_old_style_key_is_refused(count, problem):
    with pytest.raises(InputError, match=r'key must be made by jax\.random\.key, got Array\(\[0, 0\], dtype=uint32\)'):
        BIM(problem.surrogate, problem.images[:count], problem.labels[:count], jax.random.PRNGKey(0))


def test_types_and_shapes_are_checked_under_jit_too(problem):
    with pytest.raises(InputError, match='divide uint8 images by 255'):
        jax.jit(BIM)(problem.surrogate, np.zeros((2, 6, 6, 3), np.uint8), problem.labels[:2], jax.random.key(0))


def test_an_empty_batch_and_a_number_for_a_key_are_refused(problem):
    with pytest.raises(InputError, match='at least one image'):
        BIM(problem.surrogate, problem.images[:0], problem.labels[:0], jax.random.split(jax.random.key(0), 0))
    with pytest.raises(InputError, match=r'key must be made by jax\.random\.key, got 0'):
        BIM(problem.surrogate, problem.images, problem.labels, 0)


def test_a_surrogate_must_return_logits(problem):
    with pytest.raises(InputError, match=r'the surrogate must return logits \[14, K\]'):
        BIM(lambda images: (images.reshape(len(images), -1), {}), problem.images, problem.labels, jax.random.key(0))


@pytest.mark.parametrize(
    ('chunk_size', 'advice'), [(1, 'chunk_size 1: use a smaller batch size$'), (4, 'or a chunk_size below 4$')]
)
def test_a_device_that_runs_out_of_memory_says_what_to_change(chunk_size, advice):
    message = f"attack 'vmi_fgsm' ran out of device memory with 64 images.*{advice}"
    with pytest.raises(RunError, match=message), arguments.memory_advice('vmi_fgsm', 64, chunk_size):
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate')


def test_other_device_errors_are_not_changed():
    with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'), arguments.memory_advice('bim', 1, 1):
        raise jax.errors.JaxRuntimeError('INTERNAL: something else')
