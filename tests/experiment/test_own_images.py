"""A user's folder of images, through the template `configs/image_folder.py`."""

import pathlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from rfn_jax import transfer
from rfn_jax.cli import main
from rfn_jax.core import tables

TEMPLATE = pathlib.Path(__file__).parents[2] / 'configs' / 'image_folder.py'


def draw(folder, name, count):
    """Draws disks, squares or stripes of random colors at random places, of different sizes and in two formats."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(name))
    for number in range(count):
        width, height = rng.integers(60, 120, 2).tolist()
        image = Image.new('RGB', (width, height), tuple(rng.integers(0, 120, 3).tolist()))
        pen, color = ImageDraw.Draw(image), tuple(rng.integers(130, 256, 3).tolist())
        x, y, size = (*rng.integers(5, 25, 2).tolist(), int(rng.integers(20, 35)))
        if name == 'stripes':
            for line in range(0, height, 8):
                pen.line([(0, line), (width, line + x - 15)], fill=color, width=3)
        else:
            shape = pen.ellipse if name == 'disks' else pen.rectangle
            shape([x, y, x + size, y + size], fill=color)
        image.save(folder / f'{number}.{"png" if number % 2 else "jpg"}')


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_folder_of_three_classes_gives_a_report_with_nothing_but_the_template(tmp_path):
    for name in ('disks', 'squares', 'stripes'):
        draw(tmp_path / 'shapes' / name, name, 60)
    command = ['run', f'--config={TEMPLATE}:{tmp_path / "shapes"}', f'--workdir={tmp_path / "work"}']
    assert (
        main.main([*command, '--config.optim.epochs=8', '--config.optim.decay_epochs=(4, 6)', '--config.seeds=1']) == 0
    )
    results = tmp_path / 'work' / 'results'
    natural = tables.read(results / 'natural.csv', transfer.NaturalRow)
    assert min(row.accuracy for row in natural if row.model == 'resnet') > 0.6  # chance is a third
    trainings = [row.training for row in tables.read(results / 'summary.csv', transfer.SummaryRow)]
    assert trainings == ['sgd', 'early_stopped', 'rfn']
    assert (tmp_path / 'work' / 'report' / 'index.html').exists()
