"""The values that each part and recipe accepts, in one table; the wording of the checks is tested with `core/checks.py`."""

import functools
import math

import numpy as np
import pytest

from rfn_jax import attacks
from rfn_jax.attacks.inputs import mixing
from rfn_jax.core.errors import InputError, InputTypeError

look_ahead = functools.partial(attacks.look_ahead, **{'step_size': 0.1})
variance = functools.partial(attacks.variance_tuned, **{'radius': 0.1})
penalty = functools.partial(attacks.penalized_norm, **{'radius': 0.1, 'step_size': 0.1})
enhanced = functools.partial(attacks.enhanced_momentum, **{'step_size': 0.1})
reverse = functools.partial(attacks.reverse_perturbation, **{'radius': 0.1, 'step_size': 0.1})
patchwise = functools.partial(attacks.patchwise, **{'step_size': 0.01, 'eps': 0.1})
cycle = functools.partial(attacks.checkpoint_cycle, ())
budget = functools.partial(attacks.Budget, **{'eps': 0.1})

# Function, option, smallest value.
INTEGERS = [
    (attacks.random_shift, 'max_shift', 1),
    (attacks.random_shift, 'copies', 1),
    (attacks.scale_copies, 'copies', 1),
    (attacks.spectrum_simulation, 'copies', 1),
    (attacks.block_shuffle_rotate, 'copies', 1),
    (attacks.block_shuffle_rotate, 'blocks', 1),
    (mixing.admix, 'mixes', 1),
    (mixing.admix, 'scales', 1),
    (attacks.translation_kernel, 'size', 1),
    (variance, 'neighbors', 1),
    (penalty, 'neighbors', 1),
    (enhanced, 'samples', 2),
    (reverse, 'inner_steps', 1),
    (reverse, 'late_start', 0),
    (patchwise, 'kernel_size', 3),
    (attacks.bim, 'steps', 1),
    (attacks.bim, 'restarts', 1),
    (attacks.bim, 'chunk_size', 1),
    (attacks.apgd, 'steps', 1),
    (attacks.apgd, 'restarts', 1),
]
# Function, option, and the allowed range: its wording, a value below it and one above it.
ABOVE_0, FROM_0, FROM_0_TO_1 = (
    ('above 0', 0.0, math.inf),
    ('at least 0', -0.1, math.inf),
    ('at least 0 and at most 1', -0.1, 1.1),
)
NUMBERS = [
    (attacks.input_diversity, 'rate', ABOVE_0),
    (attacks.input_diversity, 'probability', FROM_0_TO_1),
    (attacks.spectrum_simulation, 'rho', FROM_0_TO_1),
    (attacks.spectrum_simulation, 'sigma', FROM_0),
    (attacks.block_shuffle_rotate, 'max_angle', ('at least 0 and at most 180', -1, 181.0)),
    (mixing.admix, 'portion', FROM_0_TO_1),
    (attacks.translation_kernel, 'nsig', ABOVE_0),
    (look_ahead, 'step_size', ABOVE_0),
    (look_ahead, 'decay', FROM_0),
    (variance, 'radius', ABOVE_0),
    (penalty, 'radius', ABOVE_0),
    (penalty, 'step_size', ABOVE_0),
    (penalty, 'balance', FROM_0_TO_1),
    (enhanced, 'step_size', ABOVE_0),
    (enhanced, 'radius', ABOVE_0),
    (reverse, 'radius', ABOVE_0),
    (reverse, 'step_size', ABOVE_0),
    (attacks.accumulate, 'decay', FROM_0),
    (patchwise, 'step_size', ABOVE_0),
    (patchwise, 'eps', ABOVE_0),
    (patchwise, 'amplification', ABOVE_0),
    (attacks.ghost_network, 'skip_scale', ('at least 0 and below 1', -0.1, 1.0)),
    (attacks.ghost_network, 'dropout', ('at least 0 and below 1', -0.1, 1.0)),
    (attacks.skip_gradient, 'gamma', FROM_0_TO_1),
    (attacks.Budget, 'eps', ABOVE_0),
    (attacks.fgsm, 'eps', ABOVE_0),
    (attacks.bim, 'step_size', ABOVE_0),
    (attacks.apgd, 'eps', ABOVE_0),
]


@pytest.mark.parametrize(('function', 'option', 'least'), INTEGERS)
def test_integers(function, option, least):
    function(**{option: np.int64(2 * least + 3)})
    with pytest.raises(InputError, match=f'{option}.* must be an integer of at least {least}, got {least - 1}'):
        function(**{option: least - 1})
    for value in (float(least), True, '3'):
        with pytest.raises(InputTypeError, match=f'{option}.* must be an integer of at least {least}, got'):
            function(**{option: value})


@pytest.mark.parametrize(('function', 'option', 'allowed'), NUMBERS)
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
        (budget, {'norm': 'linff'}, "unknown norm 'linff'; did you mean 'linf'"),
        (budget, {'eps': 8}, 'eps must be at most 1, since images are in .* got 8; did you mean 8/255'),
        (attacks.apgd, {'loss': 'cross entropy'}, "unknown loss 'cross entropy'; did you mean 'cross_entropy'"),
        (attacks.mi_fgsm, {'decay': -0.5}, r'decay must be a finite number at least 0, got -0\.5'),
        (attacks.mi_fgsm, {'decay': True}, "decay of attack component 'mi' must be float, got True"),
        (attacks.vmi_fgsm, {'beta': 0.0}, r'beta must be a finite number above 0, got 0\.0'),
        (attacks.fgsm, {'norm': 'Linf'}, "unknown norm 'Linf'; did you mean 'linf'"),
        (cycle, {'seed': -1}, 'seed of a cycle of checkpoints must be an integer of at least 0, got -1'),
        (
            attacks.linear_backprop,
            {'from_layer': 3},
            'from_layer of linear_backprop must be the name of a layer, got 3',
        ),
    ],
)
def test_other_arguments_are_checked(function, options, message):
    with pytest.raises(InputError, match=message):
        function(**options)
