"""Data sets in memory as uint8, their splits, augmentation on the device, and the order of examples."""

from rfn_jax.data import arrays, cifar10, digits  # fill the table of data sets
from rfn_jax.data.arrays import pinned
from rfn_jax.data.augmentation import CropAndFlip
from rfn_jax.data.batches import epoch_order, padded_batches
from rfn_jax.data.dataset import ImageDataset, Splits
from rfn_jax.data.sources import SOURCES

__all__ = [
    'SOURCES', 'CropAndFlip', 'ImageDataset', 'Splits', 'arrays', 'cifar10', 'digits', 'epoch_order', 'padded_batches',
    'pinned',
]  # fmt: skip
