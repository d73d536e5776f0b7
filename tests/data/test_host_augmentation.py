"""Random crops and RandAugment on the host: their distributions, and that they depend on seed, epoch and id alone."""

import jax
import numpy as np
import pytest
import synthetic

from rfn_jax import data
from rfn_jax.core import rng, sharding
from rfn_jax.core.errors import InputError
from rfn_jax.data import rand_augment

INFO = data.DataInfo((12, 12, 3), ('a', 'b'), (0.5,) * 3, (0.25,) * 3)
HOST = data.Augmentation(random_resized_crop=(0.2, 1.0), rand_augment=(2, 9)).on_host()


class Photos:
    """Images of several sizes."""

    source = 'photos'
    ids = np.arange(24) * 2**33 + 7

    def __init__(self):
        self.taken = []

    def __len__(self):
        return 24

    def __getitem__(self, position):
        self.taken.append(position)
        image = synthetic.image(20 + position, 40 - position, seed=position)
        return data.Record(image, np.int32(position % 2), self.ids[position])


def resized():
    return data.ResizedSource(Photos(), data.ResizeAndCrop(12, 14, 'bicubic'))


def batches(batch_size, *, devices=1, seed=3, epoch=2, source=None, host=HOST, **options):
    mesh = sharding.data_mesh(jax.devices()[:devices])
    loader = data.loader(
        source or resized(), INFO, batch_size=batch_size, seed=seed, mesh=mesh, augmentation=host, **options
    )
    assert isinstance(loader, data.StreamingLoader)
    return list(loader.epoch(epoch))


def by_id(found):
    return {int(number): np.asarray(image) for b in found for number, image in zip(b.ids, b.images, strict=True)}


@pytest.mark.parametrize(('height', 'width'), [(300, 300), (200, 260)])
def test_the_boxes_are_distributed_as_defined(height, width):
    crop, area = data.RandomResizedCrop((0.1, 0.4)), height * width
    generator = rng.generator_for(0, 'test')
    boxes = np.array([crop.box(height, width, generator) for _ in range(4000)], float)
    left, top, right, bottom = boxes.T
    box_width, box_height = right - left, bottom - top
    # Every box of at most 0.4 of the area fits: the first try counts.
    values = [
        (box_width * box_height / area, 0.25, 0.3**2 / 12),
        (np.log(box_width / box_height), 0, (2 * np.log(4 / 3)) ** 2 / 12),
        ((left + 0.5) / (width - box_width + 1), 0.5, 1 / 12),
        ((top + 0.5) / (height - box_height + 1), 0.5, 1 / 12),
    ]
    for value, mean, variance in values:
        assert abs(value.mean() - mean) < 4.5 * np.sqrt(variance / 4000) + 2e-3
        assert abs(value.var() / variance - 1) < 0.08
    assert (boxes >= 0).all()
    assert right.max() <= width
    assert bottom.max() <= height
    correlation = np.corrcoef([value for value, _, _ in values])
    assert np.abs(correlation - np.eye(4)).max() < 0.07


def test_an_image_whose_boxes_rarely_fit_is_used_whole_or_in_its_center():
    generator = rng.generator_for(1, 'test')
    boxes = {data.RandomResizedCrop((1.0, 1.0), (0.5, 2)).box(10, 17, generator) for _ in range(50)}
    assert (0, 0, 17, 10) in boxes
    assert all(0 <= left < right <= 17 and 0 <= top < bottom <= 10 for left, top, right, bottom in boxes)


def test_operations_and_signs_are_drawn_uniformly():
    drawn = []
    names = list(rand_augment.OPERATIONS)

    class Counting:
        def __init__(self):
            self.generator = rng.generator_for(2, 'test')

        def integers(self, limit):
            drawn.append((limit, int(self.generator.integers(limit))))
            return drawn[-1][1]

    image, generator = synthetic.image(4, 4), Counting()
    for _ in range(700):
        data.RandAugment(2, 5)(image, generator)
    counts = np.bincount([value for limit, value in drawn if limit == 14], minlength=14)
    assert counts.sum() == 1400
    assert np.abs(counts - 100).max() < 45
    signs = [value for limit, value in drawn if limit == 2]
    signed = [index for index, name in enumerate(names) if rand_augment.OPERATIONS[name].signed]
    assert len(signs) == counts[signed].sum()
    assert abs(np.mean(signs) - 0.5) < 0.07


def test_pixels_depend_on_seed_epoch_and_id_alone():
    whole = by_id(batches(24))
    assert len(whole) == 1  # the lowest 32 bits of all ids are 7
    source = resized()
    transform = HOST.transform(source, INFO.image_shape, seed=3, epoch=2)
    records = [source.originals[position] for position in range(24)]
    expected = [transform(record) for record in records]
    for batch_size, devices in ((24, 1), (24, 8), (8, 2), (5, 1)):
        order = np.asarray(data.epoch_order(24, batch_size, seed=3, epoch=2))
        for batch, positions in zip(batches(batch_size, devices=devices), order, strict=True):
            np.testing.assert_array_equal(batch.images, np.stack([expected[p] for p in positions]))
    for seed, epoch in ((4, 2), (3, 1)):
        other = HOST.transform(source, INFO.image_shape, seed=seed, epoch=epoch)
        assert np.mean([np.array_equal(other(r), e) for r, e in zip(records, expected, strict=True)]) < 0.1
    copy = records[0]._replace(id=records[1].id)
    assert not np.array_equal(transform(copy), expected[0])


def test_two_hosts_read_their_rows_of_the_same_batches(monkeypatch):
    (whole,) = batches(24)
    parts = []
    for host in range(2):
        source = resized()
        monkeypatch.setattr(sharding, 'local_rows', lambda count, mesh, h=host: np.arange(count // 2) + h * count // 2)
        monkeypatch.setattr(sharding, 'from_local', lambda leaf, placed, count, axis: leaf)
        (part,) = batches(24, source=source)
        parts.append(part.images)
        assert len(set(source.originals.taken)) == 12
    np.testing.assert_array_equal(np.concatenate(parts), whole.images)


def test_crops_come_from_the_original_images_and_keep_the_interpolation():
    whole_image = data.HostAugmentation(data.RandomResizedCrop((1.0, 1.0), (1.0, 1.0)))
    for interpolation in ('bilinear', 'bicubic'):
        source = data.ResizedSource(Photos(), data.ResizeAndCrop(12, 12, interpolation))
        transform = whole_image.transform(source, (12, 12, 3), seed=0, epoch=1)
        square = data.Record(synthetic.image(30, 30), np.int32(0), np.int64(0))
        np.testing.assert_array_equal(transform(square), source.transform(square.image))
    only = data.Augmentation(rand_augment=(1, 9)).on_host()
    assert only.source(source) is source
    assert whole_image.source(source) is source.originals


def test_a_source_of_one_size_is_cropped_from_its_own_images():
    class Small(Photos):
        def __getitem__(self, position):
            return super().__getitem__(position)._replace(image=synthetic.image(12, 12, seed=position))

    (batch,) = batches(24, source=Small())
    order = np.asarray(data.epoch_order(24, 24, seed=3, epoch=2))[0]
    transform = HOST.transform(Small(), INFO.image_shape, seed=3, epoch=2)
    np.testing.assert_array_equal(batch.images, np.stack([transform(Small()[p]) for p in order]))


def test_images_augmented_on_the_host_cannot_stay_on_the_devices():
    with pytest.raises(
        InputError, match=r'random_resized_crop and rand_augment .* streaming must be True or None, got False'
    ):
        batches(24, streaming=False)
    batches(24, streaming=True)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'random_resized_crop': (0.0, 1.0)}, r'min_area <= max_area <= 1, got \(0.0, 1.0\)'),
        ({'random_resized_crop': (0.5, 0.1)}, r'got \(0.5, 0.1\)'),
        ({'random_resized_crop': (0.5, 1.1)}, r'got \(0.5, 1.1\)'),
        ({'random_resized_crop': [0.5]}, r'got \(0.5,\)'),
        ({'rand_augment': (0, 9)}, 'num_ops of rand_augment must be an integer of at least 1, got 0'),
        ({'rand_augment': (2, 31)}, 'magnitude of rand_augment must be an integer from 0 to 30, got 31'),
        ({'rand_augment': (2,)}, r'rand_augment must be \(num_ops, magnitude\), got \(2,\)'),
        ({'mixup': -0.1}, 'mixup must be a finite number at least 0, got -0.1'),
        ({'cutmix': float('inf')}, 'cutmix must be a finite number at least 0, got inf'),
        ({'crop_padding': -1}, 'crop_padding must be an integer of at least 0, got -1'),
    ],
)
def test_wrong_values_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        data.Augmentation(**options)


def test_a_wrong_ratio_is_refused():
    with pytest.raises(InputError, match=r'ratio must be .*, got \(0, 1\)'):
        data.RandomResizedCrop(ratio=(0, 1))


def test_by_default_nothing_is_done():
    nothing = data.Augmentation()
    assert nothing.on_host() is None
    assert nothing.mixing(2) is None
    assert nothing.on_device() == data.CropAndFlip()
