import dataclasses

import numpy as np
import pytest

from rfn_jax.core import tables
from rfn_jax.transfer import BLACK_BOX, WHITE_BOX, Crafted, NaturalRow, TransferRow, best_epoch, gains, mean_success

CRAFTED = Crafted(surrogate='resnet', training='rfn', seed=2, epoch=40, attack='bim', eps=4 / 255, norm='linf')


def test_columns_are_those_that_readers_rely_on():
    assert ','.join(tables.columns(TransferRow)) == (
        'surrogate,training,seed,epoch,attack,eps,norm,target,kind,success_rate,ci_low,ci_high,n,gradient_evaluations'
    )
    assert ','.join(tables.columns(NaturalRow)) == 'model,role,training,seed,epoch,accuracy,top5_accuracy,n'
    assert (WHITE_BOX, BLACK_BOX) == ('white-box', 'black-box')


def test_a_transfer_row_has_exactly_the_columns_and_the_wilson_interval():
    success = np.arange(263) < 81
    row = dataclasses.asdict(TransferRow.of(CRAFTED, 'vgg', BLACK_BOX, success, gradient_evaluations=50))
    assert (row.pop('ci_low'), row.pop('ci_high')) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998
    assert row == dataclasses.asdict(CRAFTED) | {
        'target': 'vgg', 'kind': 'black-box', 'success_rate': 81 / 263, 'n': 263, 'gradient_evaluations': 50,
    }  # fmt: skip


def test_a_natural_row_has_exactly_the_columns():
    about = {'model': 'vgg', 'role': 'target', 'training': 'sgd', 'seed': 1, 'epoch': 30}
    row = NaturalRow.of(np.array([True, True, True, False]), np.array([True] * 4), **about)
    assert dataclasses.asdict(row) == {**about, 'accuracy': 0.75, 'top5_accuracy': 1.0, 'n': 4}


def row(epoch, rate, kind=BLACK_BOX, **crafted):
    crafted = dataclasses.replace(CRAFTED, epoch=epoch, **crafted)
    return TransferRow.of(crafted, 'vgg', kind, np.arange(10) < 10 * rate, gradient_evaluations=5)


def test_the_mean_over_seeds_and_targets_decides_on_the_best_epoch():
    rows = [row(5, 0.9), row(5, 0.1), row(10, 0.6), row(10, 0.8), row(15, 0.7), row(15, 0.5)]
    assert best_epoch(rows, 'resnet', 'rfn') == (10, pytest.approx(0.7))


def test_the_earliest_of_several_best_epochs_wins_whatever_the_order_of_rows():
    rows = [row(20, 0.5), row(5, 0.4), row(10, 0.5), row(15, 0.5)]
    assert best_epoch(rows, 'resnet', 'rfn') == best_epoch(rows[::-1], 'resnet', 'rfn') == (10, 0.5)


def test_white_box_rows_and_other_networks_do_not_count():
    others = [row(10, 1.0, WHITE_BOX), row(10, 1.0, surrogate='vgg'), row(10, 1.0, training='sgd')]
    assert best_epoch(iter([row(5, 0.3), row(10, 0.2), *others]), 'resnet', 'rfn') == (5, 0.3)
    with pytest.raises(ValueError, match="surrogate 'resnet' and training 'rfn'"):
        best_epoch(others, 'resnet', 'rfn')


def test_mean_success_by_hand():
    # 2 seeds, 3 targets, 2 images: 5 of 6 and 2 of 6.
    success = np.array([[[1, 1], [1, 0], [1, 1]], [[0, 0], [1, 0], [0, 1]]], bool)
    result = mean_success(success)
    low, high = result.pop('ci_low'), result.pop('ci_high')
    assert result == {'success_rate': pytest.approx(7 / 12), 'seeds': 2, 'targets': 3, 'n': 2}
    assert 0 <= low <= 7 / 12 <= high <= 1


def test_mean_success_takes_the_targets_as_given_and_draws_seeds_and_images():
    # Targets that differ add nothing to the interval; images that differ do.
    targets_differ, images_differ = np.zeros((2, 2, 4, 100), bool)
    targets_differ[:, :2], images_differ[:, :, :50] = True, True
    result = mean_success(targets_differ)
    assert (result['ci_low'], result['ci_high']) == pytest.approx((0.5, 0.5))
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
