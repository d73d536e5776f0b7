"""The options of parts and recipes, and the arguments of attacks; the wording of checks is tested with `core/checks.py`."""

import functools
import math

import jax
import numpy as np
import pytest
from quick_attacks import slow

from rfn_jax import attacks
from rfn_jax.attacks import arguments
from rfn_jax.attacks.inputs import mixing
from rfn_jax.core.errors import InputError, InputTypeError, RunError

look_ahead = functools.partial(attacks.look_ahead, **{'step_size': 0.1})
variance = functools.partial(attacks.variance_tuned, **{'radius': 0.1})
penalty = functools.partial(attacks.penalized_norm, **{'radius': 0.1, 'step_size': 0.1})
enhanced = functools.partial(attacks.enhanced_momentum, **{'step_size': 0.1})
reverse = functools.partial(attacks.reverse_perturbation, **{'radius': 0.1, 'step_size': 0.1})
patchwise = functools.partial(attacks.patchwise, **{'step_size': 0.01, 'eps': 0.1})

# The smallest values.
INTEGERS = [
    (attacks.random_shift, {'max_shift': 1, 'copies': 1}),
    (attacks.scale_copies, {'copies': 1}),
    (attacks.spectrum_simulation, {'copies': 1}),
    (attacks.block_shuffle_rotate, {'copies': 1, 'blocks': 1}),
    (mixing.admix, {'mixes': 1, 'scales': 1}),
    (attacks.translation_kernel, {'size': 1}),
    (variance, {'neighbors': 1}),
    (penalty, {'neighbors': 1}),
    (enhanced, {'samples': 2}),
    (reverse, {'inner_steps': 1, 'late_start': 0}),
    (patchwise, {'kernel_size': 3}),
    (attacks.bim, {'steps': 1, 'restarts': 1, 'chunk_size': 1}),
    (attacks.apgd, {'steps': 1, 'restarts': 1}),
]
# The allowed range: its wording, a value below it and one above it.
ABOVE_0 = ('above 0', 0.0, math.inf)
FROM_0 = ('at least 0', -0.1, math.inf)
FROM_0_TO_1 = ('at least 0 and at most 1', -0.1, 1.1)
FROM_0_BELOW_1 = ('at least 0 and below 1', -0.1, 1.0)
NUMBERS = [
    (attacks.input_diversity, {'rate': ABOVE_0, 'probability': FROM_0_TO_1}),
    (attacks.spectrum_simulation, {'rho': FROM_0_TO_1, 'sigma': FROM_0}),
    (attacks.block_shuffle_rotate, {'max_angle': ('at least 0 and at most 180', -1, 181.0)}),
    (mixing.admix, {'portion': FROM_0_TO_1}),
    (attacks.translation_kernel, {'nsig': ABOVE_0}),
    (look_ahead, {'step_size': ABOVE_0, 'decay': FROM_0}),
    (variance, {'radius': ABOVE_0}),
    (penalty, {'radius': ABOVE_0, 'step_size': ABOVE_0, 'balance': FROM_0_TO_1}),
    (enhanced, {'step_size': ABOVE_0, 'radius': ABOVE_0}),
    (reverse, {'radius': ABOVE_0, 'step_size': ABOVE_0}),
    (attacks.accumulate, {'decay': FROM_0}),
    (patchwise, {'step_size': ABOVE_0, 'eps': ABOVE_0, 'amplification': ABOVE_0}),
    (attacks.ghost_network, {'skip_scale': FROM_0_BELOW_1, 'dropout': FROM_0_BELOW_1}),
    (attacks.skip_gradient, {'gamma': FROM_0_TO_1}),
    (attacks.Budget, {'eps': ABOVE_0}),
    (attacks.fgsm, {'eps': ABOVE_0}),
    (attacks.bim, {'step_size': ABOVE_0}),
    (attacks.apgd, {'eps': ABOVE_0}),
]


def rows(table):
    return [(function, option, allowed) for function, options in table for option, allowed in options.items()]


@pytest.mark.parametrize(('function', 'option', 'least'), rows(INTEGERS))
def test_integers(function, option, least):
    function(**{option: np.int64(2 * least + 3)})
    with pytest.raises(InputError, match=f'{option}.* must be an integer of at least {least}, got {least - 1}'):
        function(**{option: least - 1})
    for value in (float(least), True, '3'):
        with pytest.raises(InputTypeError, match=f'{option}.* must be an integer of at least {least}, got'):
            function(**{option: value})


@pytest.mark.parametrize(('function', 'option', 'allowed'), rows(NUMBERS))
def test_numbers(function, option, allowed):
    words, below, above = allowed
    function(**{option: np.float64(0.25)})
    for value in (below, above, math.nan):
        with pytest.raises(InputError, match=f'{option}.* must be a finite number {words}, got'):
            function(**{option: value})
    for value in (True, '1'):
        with pytest.raises(InputTypeError, match=f'{option}.* must be a finite number {words}, got'):
            function(**{option: value})


@pytest.mark.parametrize(
    ('function', 'options', 'message'),
    [
        (attacks.input_diversity, {'rate': 1}, 'rate must be above or below 1, got 1'),
        (attacks.input_diversity, {'method': 'nearst'}, "unknown method 'nearst'; did you mean 'nearest'"),
        (attacks.spectrum_simulation, {'gradient': 'image'}, "unknown gradient 'image'; did you mean 'images'"),
        (mixing.admix, {'other_classes': 1}, 'other_classes must be True or False, got 1'),
        (attacks.translation_kernel, {'kind': 'gausian'}, "unknown kind 'gausian'; did you mean 'gaussian'"),
        (attacks.translation_kernel, {'size': 14}, 'size must be odd, got 14'),
        (patchwise, {'kernel_size': 4}, 'kernel_size must be odd, got 4'),
        (variance, {'around': 'images'}, "unknown around 'images'; did you mean 'image'"),
        (attacks.steepest, {'norm': 'l_2'}, "unknown norm 'l_2'; did you mean 'l2'"),
        (attacks.Budget, {'eps': 0.1, 'norm': 'linff'}, "unknown norm 'linff'; did you mean 'linf'"),
        (attacks.Budget, {'eps': 8}, 'eps must be at most 1, since images are in .* got 8; did you mean 8/255'),
        (attacks.apgd, {'loss': 'cross entropy'}, "unknown loss 'cross entropy'; did you mean 'cross_entropy'"),
        (attacks.mi_fgsm, {'decay': -0.5}, r'decay must be a finite number at least 0, got -0\.5'),
        (attacks.mi_fgsm, {'decay': True}, "decay of attack component 'mi' must be float, got True"),
        (attacks.vmi_fgsm, {'beta': 0.0}, r'beta must be a finite number above 0, got 0\.0'),
        (attacks.fgsm, {'norm': 'Linf'}, "unknown norm 'Linf'; did you mean 'linf'"),
        (attacks.checkpoint_cycle, {'classifiers': (), 'seed': -1}, 'seed of .* an integer of at least 0, got -1'),
        (attacks.linear_backprop, {'from_layer': 3}, 'from_layer of .* must be the name of a layer, got 3'),
    ],
)
def test_other_arguments_are_checked(function, options, message):
    with pytest.raises(InputError, match=message):
        function(**options)


BIM = attacks.bim(steps=2)
KEY = jax.random.key(0)
GRAY = np.full((2, 6, 6, 3), 0.5, np.float32)
ONE_NAN = GRAY.copy()
ONE_NAN[1, 2, 1, 0] = np.nan
LABELS = np.zeros(2, np.int32)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'images': GRAY * np.float32(-0.02)}, r'images must be in \[0, 1\] without NaN, got values from -0\.01'),
        ({'images': GRAY * 510}, r'images must be in \[0, 1\] without NaN, got .* to 255'),
        ({'images': ONE_NAN}, r'images must be in \[0, 1\] without NaN, got values from nan'),
        ({'images': np.full((2, 6, 6, 3), 200, np.uint8)}, r'got uint8 \(2, 6, 6, 3\); divide uint8 images by 255'),
        ({'images': GRAY[0]}, r'images must be floats \[B, H, W, C\].*got float32 \(6, 6, 3\)'),
        ({'images': GRAY[:0], 'labels': LABELS[:0], 'key': jax.random.split(KEY, 0)}, 'at least one image'),
        ({'labels': np.array([0, 5])}, r'labels must be in \[0, 5\), the classes of the surrogate, got 5'),
        ({'labels': np.array([-1, 0])}, r'labels must be in \[0, 5\), the classes of the surrogate, got -1'),
        ({'labels': np.array([0.0, 1.0])}, r'labels must be integers \[2\], got float32 \(2,\)'),
        ({'labels': np.array([0, 1, 2])}, r'labels must be integers \[2\], got int32 \(3,\)'),
        ({'labels': np.array([[0], [1]])}, r'labels must be integers \[2\], got int32 \(2, 1\)'),
        ({'key': jax.random.split(KEY, 3)}, r'one for each of the 2 examples, got \(3,\)'),
        ({'key': 0}, r'key must be made by jax\.random\.key, got 0'),
        ({'surrogate': lambda x: (x.reshape(len(x), -1), {})}, r'the surrogate must return logits \[2, K\]'),
    ],
)
def test_arguments_are_checked(given, message, problem):
    with pytest.raises(InputError, match=message):
        BIM(**{'surrogate': problem.surrogate, 'images': GRAY, 'labels': LABELS, 'key': KEY} | given)


@pytest.mark.parametrize('count', [2, 3])
def test_an_old_style_key_is_refused(count, problem):
    with pytest.raises(InputError, match=r'key must be made by jax\.random\.key, got Array\(\[0, 0\], dtype=uint32\)'):
        BIM(problem.surrogate, problem.images[:count], problem.labels[:count], jax.random.PRNGKey(0))


def test_types_and_shapes_are_checked_under_jit_too(problem):
    with pytest.raises(InputError, match='divide uint8 images by 255'):
        jax.jit(BIM)(problem.surrogate, GRAY.astype(np.uint8), LABELS, KEY)


@pytest.mark.parametrize(
    'attack', [BIM, slow(attacks.admix(steps=2, mixes=1, scales=1))], ids=lambda attack: attack.name
)
def test_concrete_images_may_be_used_inside_a_function_under_jit(attack, problem):
    pool = {'pool': (problem.images, problem.labels)} if attack.needs_pool else {}

    def run(key):
        return attack(*problem.arguments[:3], key, **pool)

    np.testing.assert_array_equal(jax.jit(run)(KEY), run(KEY))


def test_an_attack_with_admix_asks_for_a_pool(problem):
    with pytest.raises(InputError, match=r"attack 'admix' mixes in other images: it needs pool=\(images, labels\)"):
        attacks.admix()(*problem.arguments)


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
