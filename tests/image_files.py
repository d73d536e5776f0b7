"""Small image files for tests: folders of classes, and archives in the form of ImageNet's."""

import io
import pathlib
import tarfile

import numpy as np
from PIL import Image

CLASSES = ('ant', 'bee', 'cat')


def encoded(seed, size=(12, 9), mode='RGB', kind='JPEG'):
    """An image file: smooth random colors."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(coarse).resize(size).convert(mode).save(content, kind)
    return content.getvalue()


def write_folder(root, splits=('train', 'val'), count=7, classes=CLASSES):
    """Writes `count` images for each class and split; one in three is a PNG, and sizes and modes differ."""
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            folder = pathlib.Path(root, split, name)
            folder.mkdir(parents=True)
            for i in range(count):
                kind, mode = [('JPEG', 'RGB'), ('PNG', 'P'), ('JPEG', 'CMYK'), ('PNG', 'L'), ('JPEG', 'L')][i % 5]
                seed = (s * len(classes) + c) * count + i
                content = encoded(seed, (12 + i, 9 + c), mode, kind)
                (folder / f'{split}_{i:02d}_{name}.{"JPEG" if kind == "JPEG" else "png"}').write_bytes(content)
    return pathlib.Path(root)


def tar_bytes(files):
    """An uncompressed tar file of `(name, content)`."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode='w') as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def write_archives(root, out):
    """Packs the folders train and val of `root`: a tar of tars, a tar of images, and a file `NAME CLASS` of labels."""
    out = pathlib.Path(out)
    classes = [
        (f'{folder.name}.tar', tar_bytes((file.name, file.read_bytes()) for file in sorted(folder.iterdir())))
        for folder in sorted((root / 'train').iterdir())
    ]
    (out / 'train.tar').write_bytes(tar_bytes(classes))
    images = sorted((root / 'val').glob('*/*'), key=lambda file: file.name)
    (out / 'val.tar').write_bytes(tar_bytes((file.name, file.read_bytes()) for file in images))
    (out / 'labels.txt').write_text(''.join(f'{file.name} {file.parent.name}\n' for file in images))
    return out


def contents(directory):
    """The files of a folder and its subfolders, by relative path."""
    root = pathlib.Path(directory)
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob('*') if file.is_file()}
