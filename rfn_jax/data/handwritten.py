"""The built-in data set: 1797 gray 8x8 images of handwritten digits, which come with scikit-learn.

Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

import hashlib

import numpy as np

from rfn_jax.data import dataset, sources
from rfn_jax.data import info as info_lib

TRAIN, VALIDATION = 1000, 250  # the remaining 547 are for testing
INFO = info_lib.DataInfo(
    image_shape=(8, 8, 1),
    class_names=tuple(map(str, range(10))),
    mean=(0.3054353553921569,),
    std=(0.3762265406780967,),
)


@sources.SOURCES.register
def digits() -> sources.Splits:
    """1000 training, 250 validation and 547 test images of 8x8 gray pixels in 10 classes; needs no file and no network.

    The splits never change: examples are ordered by the SHA-256 of their index.
    """
    import sklearn.datasets  # takes a second, and other data sets do not need it

    bunch = sklearn.datasets.load_digits()
    order = sorted(range(len(bunch.target)), key=lambda i: hashlib.sha256(f'digits-{i}'.encode()).digest())
    whole = dataset.ImageDataset(
        images=np.rint(bunch.images[..., None] * (255 / 16)).astype(np.uint8),
        labels=bunch.target.astype(np.int32),
        ids=np.arange(len(bunch.target)),
        class_names=INFO.class_names,
        source='digits',
    )
    positions = np.split(np.asarray(order), [TRAIN, TRAIN + VALIDATION])
    return sources.Splits(INFO, *(whole.take(split) for split in positions))
