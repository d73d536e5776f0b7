"""Data sets: their metadata, their examples by position, and the batches of an epoch on the devices."""

from rfn_jax.data.array_file import arrays, pinned
from rfn_jax.data.augmentation import CropAndFlip
from rfn_jax.data.batches import epoch_order, padded_batches, steps_per_epoch
from rfn_jax.data.dataset import ImageDataset
from rfn_jax.data.handwritten import digits
from rfn_jax.data.info import DataInfo
from rfn_jax.data.loaders import Batch, Loader, ResidentLoader, StreamingLoader, is_large, loader
from rfn_jax.data.reading import in_memory, read_batches
from rfn_jax.data.sources import SOURCES, Record, Source, Splits
from rfn_jax.data.tfds_source import cifar10

__all__ = [
    'SOURCES', 'Batch', 'CropAndFlip', 'DataInfo', 'ImageDataset', 'Loader', 'Record', 'ResidentLoader', 'Source',
    'Splits', 'StreamingLoader', 'arrays', 'cifar10', 'digits', 'epoch_order', 'in_memory', 'is_large', 'loader',
    'padded_batches', 'pinned', 'read_batches', 'steps_per_epoch',
]  # fmt: skip
