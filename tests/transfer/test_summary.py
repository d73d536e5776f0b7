import numpy as np
import pytest

from rfn_jax.transfer import gains, mean_success


def test_mean_success_by_hand():
    # 2 seeds, 3 targets, 2 images: 5 of 6 and 2 of 6.
    success = np.array([[[1, 1], [1, 0], [1, 1]], [[0, 0], [1, 0], [0, 1]]], bool)
    result = mean_success(success)
    low, high = result.pop('ci_low'), result.pop('ci_high')
    assert result == {'success_rate': pytest.approx(7 / 12), 'seeds': 2, 'targets': 3, 'n': 2}
    assert 0 <= low <= 7 / 12 <= high <= 1


def test_mean_success_takes_the_targets_as_given_and_draws_seeds_and_images():
    # Targets that differ add nothing to the interval; images that differ do.
    targets_differ = np.zeros((2, 4, 100), bool)
    targets_differ[:, :2] = True
    result = mean_success(targets_differ)
    assert (result['ci_low'], result['ci_high']) == pytest.approx((0.5, 0.5))
    images_differ = np.zeros((2, 4, 100), bool)
    images_differ[:, :, :50] = True
    result = mean_success(images_differ)
    assert result['ci_high'] - result['ci_low'] == pytest.approx(2 * 1.96 * 0.05, rel=0.1)


def test_gains_are_paired_differences_by_hand():
    success = np.array([[[1, 1, 1, 0]], [[1, 1, 0, 0]]], bool)  # 5 of 8
    baselines = {
        'sgd': np.array([[[1, 0, 0, 0]], [[0, 1, 0, 0]]], bool),  # 2 of 8
        'sam': np.array([[[1, 1, 1, 1]], [[1, 1, 1, 0]]], bool),  # 7 of 8
        'same': success,
    }
    rows = gains(success, baselines)
    assert [row['baseline'] for row in rows] == ['sgd', 'sam', 'same']
    assert [row['gain'] for row in rows] == pytest.approx([3 / 8, -2 / 8, 0.0])
    for row in rows:
        assert set(row) == {'baseline', 'gain', 'ci_low', 'ci_high'}
        assert row['ci_low'] <= row['gain'] <= row['ci_high']
    assert (rows[2]['ci_low'], rows[2]['ci_high']) == (0.0, 0.0)


def test_pairing_leaves_out_what_is_common_to_both():
    # Both succeed on the same half of the images; the gain is the same on every image, so its interval has no width.
    baseline = np.zeros((2, 2, 200), bool)
    baseline[:, 0, :100] = True
    success = baseline.copy()
    success[:, 1] = True
    (row,) = gains(success, {'sgd': baseline})
    assert (row['gain'], row['ci_low'], row['ci_high']) == pytest.approx((0.5, 0.5, 0.5))
