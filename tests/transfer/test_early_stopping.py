import pytest

from rfn_jax.transfer import BLACK_BOX, WHITE_BOX, TransferRow, best_epoch


def row(epoch, rate, *, surrogate='resnet', training='rfn', kind=BLACK_BOX):
    return TransferRow(
        surrogate=surrogate, training=training, seed=0, epoch=epoch, attack='bim', eps=0.1, norm='linf', target='vgg',
        kind=kind, success_rate=rate, ci_low=0.0, ci_high=1.0, n=10, gradient_evaluations=5,
    )  # fmt: skip


def test_the_mean_over_seeds_and_targets_decides():
    rows = [row(5, 0.9), row(5, 0.1), row(10, 0.6), row(10, 0.8), row(15, 0.7), row(15, 0.5)]
    assert best_epoch(rows, 'resnet', 'rfn') == (10, pytest.approx(0.7))


def test_the_earliest_of_several_best_epochs_wins_whatever_the_order_of_rows():
    rows = [row(20, 0.5), row(5, 0.4), row(10, 0.5), row(15, 0.5)]
    assert best_epoch(rows, 'resnet', 'rfn') == (10, 0.5)
    assert best_epoch(rows[::-1], 'resnet', 'rfn') == (10, 0.5)


def test_white_box_rows_and_other_networks_do_not_count():
    rows = [
        row(5, 0.3),
        row(10, 0.2),
        row(10, 1.0, kind=WHITE_BOX),
        row(10, 1.0, surrogate='vgg'),
        row(10, 1.0, training='sgd'),
    ]
    assert best_epoch(iter(rows), 'resnet', 'rfn') == (5, 0.3)


def test_no_row_is_an_error_that_names_the_surrogate_and_the_training():
    rows = [row(5, 0.3, kind=WHITE_BOX), row(5, 0.3, training='sgd')]
    with pytest.raises(ValueError, match="surrogate 'resnet' and training 'rfn'"):
        best_epoch(rows, 'resnet', 'rfn')
