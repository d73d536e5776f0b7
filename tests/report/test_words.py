import dataclasses

import pytest

from rfn_jax.report import results, words

SETTING = {'surrogate': 'resnet', 'attack': 'bim', 'eps': 4 / 255, 'norm': 'linf'}


def _summary(training='rfn', rate=0.5):
    figures = {'success_rate': rate, 'ci_low': None, 'ci_high': None, 'white_box_rate': 1.0, 'natural_accuracy': 0.9}
    return results.SummaryRow(
        **SETTING, training=training, **figures, seeds=1, targets=3, n=100, gradient_evaluations=50
    )


def _gain(baseline, gain, low, high):
    return results.GainRow(**SETTING, training='rfn', baseline=baseline, gain=gain, ci_low=low, ci_high=high)


def _finding(*gains):
    (sentence,) = words.findings([_summary()], [_gain(*gain) for gain in gains])
    assert sentence.startswith('rfn reaches a mean black-box success rate of 50.0 % and is ')
    return sentence.removeprefix('rfn reaches a mean black-box success rate of 50.0 % and is ')


def test_above_both_with_certainty():
    assert _finding(('sgd', 0.123, 0.09, 0.151), ('stopped', 0.04, 0.01, 0.07)) == (
        'above both baselines: +12.3 points against sgd (95 % interval +9.0 to +15.1) and '
        '+4.0 points against stopped (95 % interval +1.0 to +7.0); no interval includes zero.'
    )


def test_above_both_with_one_interval_across_zero():
    sentence = _finding(('sgd', 0.123, 0.09, 0.151), ('stopped', 0.04, -0.01, 0.07))
    assert sentence.startswith('above both baselines: ')
    assert '(95 % interval -1.0 to +7.0)' in sentence
    assert sentence.endswith('; the interval against stopped includes zero.')


def test_above_both_with_both_intervals_across_zero():
    sentence = _finding(('sgd', 0.02, -0.01, 0.05), ('stopped', 0.04, -0.01, 0.07))
    assert sentence.endswith('; the intervals against sgd and stopped include zero.')


def test_below_one():
    sentence = _finding(('sgd', 0.1, 0.05, 0.15), ('stopped', -0.04, -0.06, -0.02))
    assert sentence.startswith('above sgd but not above stopped: ')
    assert '-4.0 points against stopped (95 % interval -6.0 to -2.0)' in sentence
    assert sentence.endswith('; no interval includes zero.')


def test_below_both_and_level_are_not_above():
    assert _finding(('sgd', 0.0, -0.1, 0.1), ('stopped', -0.04, -0.06, -0.02)).startswith('above neither baseline: ')


@pytest.mark.parametrize(('gain', 'start'), [(0.1, 'above sgd: '), (-0.1, 'not above sgd: ')])
def test_one_baseline(gain, start):
    sentence = _finding(('sgd', gain, gain - 0.01, gain + 0.01))
    assert sentence.startswith(start)
    assert sentence.endswith('; the interval excludes zero.')


def test_three_baselines():
    assert _finding(*((name, 0.1, 0.05, 0.2) for name in 'abc')).startswith('above all 3 baselines: ')
    assert _finding(*((name, -0.1, -0.2, 0.2) for name in 'abc')).startswith('above none of the 3 baselines: ')


def test_no_interval_is_said_to_be_missing():
    sentence = _finding(('sgd', 0.1, None, None), ('stopped', 0.1, 0.05, 0.15))
    assert '+10.0 points against sgd and ' in sentence
    assert sentence.endswith('; there are not enough data for intervals.')


def test_no_gains():
    assert words.findings([_summary()], []) == ['No training was compared with a baseline.']


def test_one_sentence_for_each_training_that_is_compared():
    gains = [_gain('sgd', 0.1, 0.05, 0.15), dataclasses.replace(_gain('sgd', 0.2, 0.1, 0.3), training='sam')]
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
