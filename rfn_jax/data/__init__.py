"""Data sets: their metadata, their examples by position, and the batches of an epoch on the devices."""

from rfn_jax.data.array_file import arrays
from rfn_jax.data.augmentation import CropAndFlip
from rfn_jax.data.batches import epoch_order, steps_per_epoch
from rfn_jax.data.dataset import ImageDataset
from rfn_jax.data.decoding import decode
from rfn_jax.data.folder_source import image_folder
from rfn_jax.data.handwritten import digits
from rfn_jax.data.info import DataInfo
from rfn_jax.data.loaders import Batch, Loader, ResidentLoader, StreamingLoader, is_large, loader
from rfn_jax.data.pinning import LOCATIONS, pinned
from rfn_jax.data.reading import in_memory, padded_batches, read_batches
from rfn_jax.data.resized import ResizedSource
from rfn_jax.data.resizing import ResizeAndCrop
from rfn_jax.data.sources import SOURCES, Record, Source, Splits
from rfn_jax.data.tfds_source import cifar10, tfds

__all__ = [
    'LOCATIONS', 'SOURCES', 'Batch', 'CropAndFlip', 'DataInfo', 'ImageDataset', 'Loader', 'Record', 'ResidentLoader',
    'ResizeAndCrop', 'ResizedSource', 'Source', 'Splits', 'StreamingLoader', 'arrays', 'cifar10', 'decode', 'digits',
    'epoch_order', 'image_folder', 'in_memory', 'is_large', 'loader', 'padded_batches', 'pinned', 'read_batches',
    'steps_per_epoch', 'tfds',
]  # fmt: skip
