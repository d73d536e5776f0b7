import pytest

from rfn_jax import transfer as transfer_lib
from rfn_jax.report import results, words

SETTING = {'surrogate': 'resnet', 'attack': 'bim', 'eps': 4 / 255, 'norm': 'linf'}
ABOVE_SGD, ABOVE_STOPPED = ('sgd', 0.123, 0.09, 0.151), ('stopped', 0.04, 0.01, 0.07)


def _summary(training='rfn', rate=0.5):
    figures = {'success_rate': rate, 'ci_low': None, 'ci_high': None, 'white_box_rate': 1.0, 'natural_accuracy': 0.9}
    counts = {'seeds': 1, 'targets': 3, 'n': 100, 'gradient_evaluations': 50}
    return transfer_lib.SummaryRow(**SETTING, training=training, **figures, **counts)


def _gain(baseline, gain, low, high, training='rfn'):
    return transfer_lib.GainRow(**SETTING, training=training, baseline=baseline, gain=gain, ci_low=low, ci_high=high)


@pytest.mark.parametrize(
    ('gains', 'start', 'end'),
    [
        (
            [ABOVE_SGD, ABOVE_STOPPED],
            'above both baselines: +12.3 points against sgd (95 % interval +9.0 to +15.1) and +4.0 points against ',
            ' against stopped (95 % interval +1.0 to +7.0); no interval includes zero.',
        ),
        (
            [ABOVE_SGD, ('stopped', 0.04, -0.01, 0.07)],
            'above sgd but not surely above stopped: ',
            '(95 % interval -1.0 to +7.0); the interval against stopped includes zero.',
        ),
        (
            [('sgd', 0.02, -0.01, 0.05), ('stopped', 0.04, -0.01, 0.07)],
            'not surely above any baseline: ',
            '; the intervals against sgd and stopped include zero.',
        ),
        (
            [ABOVE_SGD, ('stopped', -0.04, -0.06, -0.02)],
            'above sgd but not above stopped: ',
            '-4.0 points against stopped (95 % interval -6.0 to -2.0); no interval includes zero.',
        ),
        ([('sgd', 0.0, -0.1, 0.1), ('stopped', -0.04, -0.06, -0.02)], 'above neither baseline: ', '.'),
        ([ABOVE_SGD], 'above sgd: ', '; the interval excludes zero.'),
        ([('sgd', -0.1, -0.11, -0.09)], 'not above sgd: ', '; the interval excludes zero.'),
        ([(name, 0.1, 0.05, 0.2) for name in 'abc'], 'above all 3 baselines: ', '.'),
        ([(name, -0.1, -0.2, 0.2) for name in 'abc'], 'above none of the 3 baselines: ', '.'),
        (
            [('sgd', 0.1, None, None), ABOVE_STOPPED],
            'above stopped but not surely above sgd: +10.0 points against sgd and ',
            '; there are not enough data for intervals.',
        ),
    ],
)
def test_a_finding_compares_with_every_baseline(gains, start, end):
    (sentence,) = words.findings([_summary()], [_gain(*gain) for gain in gains])
    assert sentence.startswith(f'rfn reaches a mean black-box success rate of 50.0 % and is {start}')
    assert sentence.endswith(end)


def test_no_gains():
    assert words.findings([_summary()], []) == ['No training was compared with a baseline.']


def test_one_sentence_for_each_training_that_is_compared():
    gains = [_gain('sgd', 0.1, 0.05, 0.15), _gain('sgd', 0.2, 0.1, 0.3, training='sam')]
    sentences = words.findings([_summary(), _summary('sam', 0.7)], gains)
    assert [sentence.split(' ')[0] for sentence in sentences] == ['rfn', 'sam']
    assert 'rate of 70.0 %' in sentences[1]


@pytest.mark.parametrize(
    ('low', 'high', 'expected'),
    [(0.1, 0.2, 'yes'), (-0.2, -0.1, 'yes'), (-0.1, 0.1, 'no'), (0.0, 0.1, 'no'), (-0.1, 0.0, 'no'), (None, None, '-')],
)
def test_excludes_zero(low, high, expected):
    assert words.excludes_zero(_gain('sgd', 0.1, low, high)) == expected


@pytest.mark.parametrize(
    ('norm', 'eps', 'expected'),
    [
        ('linf', 0.015686, 'L-infinity, eps 4/255'),
        ('linf', 0.3, 'L-infinity, eps 0.3'),
        ('l2', 1.0, 'L2, eps 1'),
        ('l0', 0.5, 'l0, eps 0.5'),
    ],
)
def test_setting(norm, eps, expected):
    assert words.setting(results.Group('resnet', 'bim', eps, norm)) == f'resnet attacked with bim, {expected}'
