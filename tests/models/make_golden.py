"""Makes golden.npz, the logits of torchvision's own models with the weights and images of `filling.py`.

    python tests/models/make_golden.py [NAME ...]

This script needs torch and torchvision and is run by hand when a model is added; the tests need neither. For each model, the
file holds the first 50 logits of two images, `<name>`; those of auxiliary heads, `<name>/auxiliary`, with running statistics
everywhere and no dropout; a hash of the keys and shapes of the state dict, `<name>/keys`; and the number of parameters and
the GFLOPs that torchvision states, `<name>/parameters` and `<name>/gflops`.
"""

import csv
import hashlib
import pathlib
import sys
import time

import filling
import numpy as np
import torch
import torchvision

FILE = pathlib.Path(__file__).with_name('golden.npz')
IGNORED = ('num_batches_tracked', 'relative_position_index')
SIZES = pathlib.Path(__file__).parents[2] / 'rfn_jax' / 'models' / 'sizes.csv'


def golden(name: str) -> dict[str, np.ndarray]:
    """The entries of one model."""
    options = {'init_weights': False} if name in ('googlenet', 'inception_v3') else {}
    model = getattr(torchvision.models, name)(**options).eval()
    state = {k: v for k, v in model.state_dict().items() if k.rsplit('.', 1)[-1] not in IGNORED}
    model.load_state_dict(
        {k: torch.from_numpy(filling.tensor(k, tuple(v.shape))) for k, v in state.items()}, strict=False
    )
    lines = sorted(f'{key} {tuple(value.shape)}' for key, value in state.items())
    entries = {
        'keys': np.array(hashlib.sha256('\n'.join(lines).encode()).hexdigest()),
        'parameters': np.array(sum(p.numel() for p in model.parameters())),
        'gflops': np.array(torchvision.models.get_model_weights(name).DEFAULT.meta['_ops']),
    }
    size = 299 if name == 'inception_v3' else 224
    images = torch.from_numpy(filling.images(2, size).transpose(0, 3, 1, 2)).double()
    with torch.no_grad():
        model = model.double()
        logits = model(images)
        if options:
            model.training = True  # only of the outermost module: the heads are on, and all else is as in evaluation
            found = model(images)
            heads = [head for head in ('aux_logits1', 'aux_logits2', 'AuxLogits') if hasattr(found, head)]
            heads = heads or [field for field in found._fields if field != 'logits']
            entries['auxiliary'] = np.stack([np.float32(getattr(found, head)[:, :50]) for head in sorted(heads)])
    spread = float((logits[0] - logits[1]).std() / logits.std())
    print(f'{name:<20} std {float(logits.std()):.3g} between images {spread:.3f}', flush=True)
    entries[''] = np.float32(logits[:, :50])
    return {f'{name}/{key}' if key else name: value for key, value in entries.items()}


def main(names: list[str]) -> None:
    """Adds models to the file."""
    found = dict(np.load(FILE)) if FILE.exists() else {}
    with SIZES.open() as file:
        names = names or [row['torchvision'] for row in csv.DictReader(file) if row['torchvision']]
    for name in names:
        start = time.monotonic()
        found |= golden(name)
        print(f'  {time.monotonic() - start:.0f} s', flush=True)
        np.savez_compressed(FILE, **found)


if __name__ == '__main__':
    main(sys.argv[1:])
