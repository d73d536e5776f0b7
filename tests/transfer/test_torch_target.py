import sys

import jax
import numpy as np
import pytest

from rfn_jax import data, transfer
from rfn_jax.core import sharding
from rfn_jax.core.errors import InputError


def test_a_torch_model_is_a_target_like_any_other():
    torch = pytest.importorskip('torch')
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(9, 5, 4, 3)).astype(np.uint8)
    examples = data.ImageDataset(images, np.zeros(9, np.int32), np.arange(9), tuple('abcd'), 'toy')
    torch.manual_seed(3)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.9), torch.nn.Linear(60, 4))
    with torch.no_grad():
        module[2].weight -= module[2].weight.mean(dim=1, keepdim=True)  # so that images differ
    weight, bias = (p.detach().numpy() for p in module[2].parameters())

    def logits(weights, x):  # the same in NHWC
        return x.transpose(0, 3, 1, 2).reshape(len(x), -1) @ weights[0].T + weights[1]

    targets = {'torch': transfer.TorchTarget(module), 'jax': jax.tree_util.Partial(logits, (weight, bias))}
    options = {'batch_size': 4, 'mesh': sharding.data_mesh(jax.devices()[:1])}
    predicted = transfer.predictions(targets, examples, **options)
    np.testing.assert_array_equal(predicted['torch'], predicted['jax'])
    assert predicted['torch'].dtype == np.int32
    assert len(set(predicted['torch'].tolist())) > 1
    successes = transfer.successes(targets, 255 - images, examples, **options)
    np.testing.assert_array_equal(successes['torch'], successes['jax'])


def test_only_a_torch_module_is_accepted():
    pytest.importorskip('torch')
    with pytest.raises(InputError, match=r'model must be a torch\.nn\.Module, got function'):
        transfer.TorchTarget(lambda x: x)


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(InputError, match='a PyTorch target needs torch: pip install torch'):
        transfer.TorchTarget(None)
