"""Makes golden_images.npz: what torchvision's own transforms make of the images of `synthetic.py`.

    python tests/data/make_golden_images.py

This script needs torch and torchvision and is run by hand; the tests need neither. The keys of the file say what was done:
`resize/<height>x<width>/<resize>/<size>/<interpolation>`, `crop/<left>,<top>,<right>,<bottom>/<interpolation>`,
`center/<height>x<width>`, and `rand_augment/<operation>/<magnitude>/<sign>/<channels>`; `pillow` is the version of Pillow.
"""

import pathlib
from unittest import mock

import numpy as np
import PIL
import synthetic
import torch
import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment, functional

FILE = pathlib.Path(__file__).with_name('golden_images.npz')
MODES = {'bilinear': InterpolationMode.BILINEAR, 'bicubic': InterpolationMode.BICUBIC}
# (height, width, resize, size): landscape, portrait, odd, smaller than the crop, one pixel wide, and as large as the result.
SIZES = [
    (37, 53, 28, 24), (61, 40, 28, 24), (33, 33, 27, 20), (97, 31, 17, 17), (11, 15, 28, 24), (5, 1, 9, 8), (1, 7, 9, 8),
    (28, 35, 28, 24), (24, 24, 24, 24),
]  # fmt: skip
BOXES = [(3, 5, 30, 20), (0, 0, 53, 37), (20, 7, 27, 36), (52, 36, 53, 37)]
CENTERED = [(1, 40), (40, 1), (3, 200), (50, 30), (30, 50), (16, 16)]
MAGNITUDES = (9, 27)


def pillow(*shape: int) -> Image.Image:
    """A synthetic image."""
    pixels = synthetic.image(*shape)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def main() -> None:
    """Writes the file."""
    found = {'pillow': np.array(PIL.__version__)}
    for name, mode in MODES.items():
        for height, width, resize, size in SIZES:
            transform = torchvision.transforms.Compose(
                [torchvision.transforms.Resize(resize, mode), torchvision.transforms.CenterCrop(size)]
            )
            found[f'resize/{height}x{width}/{resize}/{size}/{name}'] = np.asarray(transform(pillow(height, width)))
        for box in BOXES:
            left, top, right, bottom = box
            cropped = functional.resized_crop(pillow(37, 53), top, left, bottom - top, right - left, [24, 24], mode)
            found[f'crop/{",".join(map(str, box))}/{name}'] = np.asarray(cropped)
    for height, width in CENTERED:
        # A crop of nine times the area never fits.
        top, left, box_height, box_width = torchvision.transforms.RandomResizedCrop.get_params(
            pillow(height, width), (9.0, 9.0), (3 / 4, 4 / 3)
        )
        found[f'center/{height}x{width}'] = np.array([left, top, left + box_width, top + box_height])
    for channels in (3, 1):
        source = pillow(21, 26, channels)
        for magnitude in MAGNITUDES:
            space = autoaugment.RandAugment()._augmentation_space(31, (21, 26))
            for index, (name, (_, signed)) in enumerate(space.items()):
                for sign in (1, -1) if signed else (1,):
                    draws = [torch.tensor([index]), torch.tensor([int(sign < 0)])]
                    with mock.patch.object(torch, 'randint', side_effect=draws):
                        changed = autoaugment.RandAugment(num_ops=1, magnitude=magnitude)(source)
                    found[f'rand_augment/{name}/{magnitude}/{sign}/{channels}'] = np.asarray(changed).reshape(
                        21, 26, channels
                    )
    np.savez_compressed(FILE, **found)
    print(f'{len(found)} entries, {FILE.stat().st_size} bytes, torchvision {torchvision.__version__}')


if __name__ == '__main__':
    main()
