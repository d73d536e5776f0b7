"""Images a second that the input pipeline decodes, crops and batches, beside plain Pillow and torchvision's DataLoader.

    python tests/benchmarks/input_pipeline.py --images=FOLDER --workers=0,1,2 --out=input_pipeline.json

FOLDER is an image folder (`train/CLASS/IMAGE`), such as a part of ImageNet. Every way makes the same work: decode, random
resized crop to 224, batches of 32. They take turns, `--rounds` times, and the median and range are reported: of one machine
and one moment, for comparing the ways and not machines. The rate is that after the first batch; what comes before, such as
the start of workers, is reported as `first_batch_s`. With `--epochs=20`, the memory of the process after each epoch is
reported as well. torchvision is left out if it cannot be imported.
"""

import argparse
import json
import pathlib
import resource
import statistics
import time
from collections.abc import Iterator

import numpy as np

from rfn_jax import data
from rfn_jax.data import random_crop, resizing

BATCH, SIZE, REPEATS = 32, 224, 16  # each round reads the folder so many times


def main() -> None:
    """Times every way in turns, and prints a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', required=True)
    parser.add_argument(
        '--classes', default='', help='file of class names, one a line; the folders of `train` if left out'
    )
    parser.add_argument('--workers', default='0,1,2')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--epochs', type=int, default=0)
    parser.add_argument('--out')
    arguments = parser.parse_args()
    splits = data.image_folder(directory=arguments.images, classes=arguments.classes)
    numbers = [int(number) for number in arguments.workers.split(',')]
    ways = {'pillow, one process': lambda: pillow(splits)}
    ways |= {f'rfn_jax, workers={number}': lambda number=number: ours(splits, number) for number in numbers}
    try:
        import torchvision  # noqa: F401
    except ImportError:
        print('torchvision is not installed, so its DataLoader is left out')
    else:
        folder = str(pathlib.Path(arguments.images, 'train'))
        ways |= {
            f'torchvision, workers={number}': lambda number=number: torchvision_loader(folder, number)
            for number in numbers
        }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    starts: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            sizes = way()
            next(sizes)
            first = time.perf_counter()
            rates[name].append(sum(sizes) / (time.perf_counter() - first))
            starts[name].append(first - start)
    rows = [
        {
            'way': name,
            'images_per_s': round(statistics.median(found), 1),
            'range': [round(min(found), 1), round(max(found), 1)],
            'first_batch_s': round(statistics.median(starts[name]), 2),
        }
        for name, found in rates.items()
    ]
    memory = []
    for _ in range(arguments.epochs):
        sum(ours(splits, 0))
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    for row in rows:
        print(json.dumps(row))
    result = {'rates': rows, 'images': len(splits.train) * REPEATS, 'peak_memory_mb_by_epoch': memory}
    if memory:
        print(json.dumps({'peak_memory_mb_by_epoch': memory}))
    if arguments.out:
        pathlib.Path(arguments.out).write_text(json.dumps(result, indent=1), encoding='utf-8')


def pillow(splits: data.Splits) -> Iterator[int]:
    """Decodes and crops the images one after another; yields the size of each batch, as the other ways do."""
    crop, source, images = random_crop.RandomResizedCrop((0.08, 1.0)), splits.train.originals, []
    for position in _positions(splits):
        image = source[position].image
        left, top, right, bottom = crop.box(*image.shape[:2], np.random.default_rng(position))
        images.append(resizing.resized(image[top:bottom, left:right], SIZE, SIZE, 'bilinear'))
        if len(images) == BATCH:
            yield len(np.stack(images))
            images = []
    yield len(images)


def ours(splits: data.Splits, workers: int) -> Iterator[int]:
    """The batches of `read_batches`."""
    augmentation = data.Augmentation(random_resized_crop=(0.08, 1.0)).on_host()
    shape = splits.info.image_shape
    transform = augmentation.transform(splits.train, shape, seed=0, epoch=1)
    source = augmentation.source(splits.train)
    options = {'image_shape': shape, 'transform': transform, 'workers': workers}
    return (len(batch.label) for batch in data.read_batches(source, _positions(splits), BATCH, **options))


def torchvision_loader(folder: str, workers: int) -> Iterator[int]:
    """The same with torchvision's transforms in PyTorch's DataLoader."""
    import torch.utils.data
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.RandomResizedCrop(SIZE), transforms.PILToTensor()])
    dataset = datasets.ImageFolder(folder, transform)
    dataset = torch.utils.data.ConcatDataset([dataset] * REPEATS)
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=workers)
    return (len(labels) for _, labels in loader)


def _positions(splits: data.Splits) -> np.ndarray:
    return np.tile(np.arange(len(splits.train)), REPEATS)


if __name__ == '__main__':
    main()
