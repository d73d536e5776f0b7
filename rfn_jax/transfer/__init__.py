"""Measuring transfer: eligible examples, crafting on a data set, success rates with intervals, the early-stopping epoch."""

from rfn_jax.transfer.crafting import craft_images, default_pool, pool_positions
from rfn_jax.transfer.early_stopping import EarlyStoppingRow, best_epoch
from rfn_jax.transfer.eligible import eligible_examples, eligible_positions
from rfn_jax.transfer.intervals import bootstrap_mean, wilson
from rfn_jax.transfer.records import BLACK_BOX, WHITE_BOX, Crafted, ExampleRow, NaturalRow, TransferRow
from rfn_jax.transfer.success import predictions, successes
from rfn_jax.transfer.summary import GainRow, SummaryRow, gains, mean_success
from rfn_jax.transfer.torch_target import TorchTarget

__all__ = [
    'BLACK_BOX', 'WHITE_BOX', 'Crafted', 'EarlyStoppingRow', 'ExampleRow', 'GainRow', 'NaturalRow', 'SummaryRow',
    'TorchTarget', 'TransferRow', 'best_epoch', 'bootstrap_mean', 'craft_images', 'default_pool', 'eligible_examples',
    'eligible_positions', 'gains', 'mean_success', 'pool_positions', 'predictions', 'successes', 'wilson',
]  # fmt: skip
