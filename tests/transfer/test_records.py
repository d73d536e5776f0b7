import dataclasses

import numpy as np
import pytest

from rfn_jax.core import tables
from rfn_jax.transfer import BLACK_BOX, WHITE_BOX, Crafted, NaturalRow, TransferRow

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
    interval = row.pop('ci_low'), row.pop('ci_high')
    assert interval == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998
    assert row == {
        'surrogate': 'resnet', 'training': 'rfn', 'seed': 2, 'epoch': 40, 'attack': 'bim', 'eps': 4 / 255, 'norm': 'linf',
        'target': 'vgg', 'kind': 'black-box', 'success_rate': 81 / 263, 'n': 263, 'gradient_evaluations': 50,
    }  # fmt: skip


def test_a_natural_row_has_exactly_the_columns():
    about = {'model': 'vgg', 'role': 'target', 'training': 'sgd', 'seed': 1, 'epoch': 30}
    row = NaturalRow.of(np.array([True, True, True, False]), np.array([True, True, True, True]), **about)
    assert dataclasses.asdict(row) == {**about, 'accuracy': 0.75, 'top5_accuracy': 1.0, 'n': 4}
