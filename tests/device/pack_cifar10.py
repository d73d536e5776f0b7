"""Packs the encoded images of CIFAR-10 into one compact file for a machine without TFDS, and unpacks them there.

    python tests/device/pack_cifar10.py pack cifar10_encoded.npz      with TFDS_DATA_DIR set
    python tests/device/pack_cifar10.py unpack cifar10_encoded.npz cifar10.npz

The unpacked file is what `--config.data.name=arrays` reads. Images keep their order, so their ids are those of TFDS.
"""

import concurrent.futures
import io
import itertools
import os
import sys
from collections.abc import Callable

import numpy as np


def pack(path: str, *, examples: dict[str, int | None]) -> None:
    """Writes the encoded images of both splits, concatenated, with offsets and labels; `examples` None stands for all."""
    import tensorflow_datasets as tfds

    if 'TFDS_DATA_DIR' not in os.environ:
        raise ValueError('TFDS_DATA_DIR must be the directory that holds cifar10/')
    arrays = {}
    for split, count in examples.items():
        options = {'decoders': {'image': tfds.decode.SkipDecoding()}, 'download': False}
        source = tfds.data_source('cifar10', split=split, data_dir=os.environ['TFDS_DATA_DIR'], **options)
        chosen = [source[index] for index in range(len(source) if count is None else count)]
        encoded = [example['image'] for example in chosen]
        arrays[f'{split}_bytes'] = np.frombuffer(b''.join(encoded), np.uint8)
        arrays[f'{split}_offsets'] = np.cumsum([0, *map(len, encoded)])
        arrays[f'{split}_labels'] = np.array([example['label'] for example in chosen], np.int32)
        arrays['class_names'] = np.array(source.dataset_info.features['label'].names)
    _save(path, np.savez_compressed, arrays)  # the headers of the images are all alike, so they compress well


def unpack(path: str, out: str) -> None:
    """Decodes a packed file into the arrays `train_images`, `train_labels`, `test_images`, `test_labels`."""
    with np.load(path, allow_pickle=False) as file:
        packed = dict(file)
    arrays = {'class_names': packed['class_names']}
    for split in ('train', 'test'):
        offsets, content = packed[f'{split}_offsets'], packed[f'{split}_bytes'].tobytes()
        encoded = [content[a:b] for a, b in itertools.pairwise(offsets)]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            arrays[f'{split}_images'] = np.stack(list(pool.map(_decode, encoded)))
        arrays[f'{split}_labels'] = packed[f'{split}_labels']
    _save(out, np.savez, arrays)


def _save(path: str | os.PathLike, save: Callable, arrays: dict[str, np.ndarray]) -> None:
    temporary = f'{path}.{os.getpid()}'
    with open(temporary, 'wb') as file:
        save(file, **arrays)
    os.replace(temporary, path)


def _decode(encoded: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(encoded)).convert('RGB'))


def main() -> None:
    try:
        match sys.argv[1:]:
            case ['pack', packed]:
                pack(packed, examples={'train': None, 'test': None})
            case ['unpack', packed, arrays]:
                unpack(packed, arrays)
            case _:
                sys.exit(__doc__)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f'pack_cifar10.py: {type(error).__name__}: {error}')


if __name__ == '__main__':
    main()
