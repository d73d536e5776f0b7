"""Data sets: their metadata, their examples by position, and the batches of an epoch on the devices."""

from rfn_jax.data.array_file import arrays
from rfn_jax.data.augmentation import Augmentation
from rfn_jax.data.batches import epoch_order, steps_per_epoch
from rfn_jax.data.crop_and_flip import CropAndFlip
from rfn_jax.data.dataset import ImageDataset
from rfn_jax.data.decoding import decode
from rfn_jax.data.folder_source import image_folder
from rfn_jax.data.handwritten import digits
from rfn_jax.data.host_augmentation import HostAugmentation
from rfn_jax.data.info import DataInfo
from rfn_jax.data.loaders import (
    Batch,
    Loader,
    ResidentLoader,
    StreamingLoader,
    check_streaming,
    is_large,
    is_streamed,
    loader,
    with_seed,
)
from rfn_jax.data.mixing import Mixing
from rfn_jax.data.pinning import LOCATIONS, pinned
from rfn_jax.data.rand_augment import RandAugment
from rfn_jax.data.random_crop import RandomResizedCrop
from rfn_jax.data.reading import in_memory, padded_batches, read_batches
from rfn_jax.data.resized import ResizedSource
from rfn_jax.data.resizing import ResizeAndCrop
from rfn_jax.data.sources import SOURCES, Record, Source, Splits
from rfn_jax.data.tfds_source import cifar10, tfds

__all__ = [
    'LOCATIONS', 'SOURCES', 'Augmentation', 'Batch', 'CropAndFlip', 'DataInfo', 'HostAugmentation', 'ImageDataset', 'Loader',
    'Mixing', 'RandAugment', 'RandomResizedCrop', 'Record', 'ResidentLoader', 'ResizeAndCrop', 'ResizedSource', 'Source',
    'Splits', 'StreamingLoader', 'arrays', 'check_streaming', 'cifar10', 'decode', 'digits', 'epoch_order', 'image_folder',
    'in_memory', 'is_large', 'is_streamed', 'loader', 'padded_batches', 'pinned', 'read_batches', 'steps_per_epoch', 'tfds',
    'with_seed',
]  # fmt: skip
