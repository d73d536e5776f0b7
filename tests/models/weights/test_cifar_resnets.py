"""The common CIFAR ResNets of PyTorch, written here with the same keys and layouts, against ours; needs torch."""

import jax
import numpy as np
import pytest

from rfn_jax import models
from rfn_jax.models import weights

torch = pytest.importorskip('torch')
F = torch.nn.functional
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


class Block(torch.nn.Module):
    """Two 3x3 convolutions; the shortcut takes every second pixel and pads channels (option A)."""

    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.conv2 = torch.nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(width)
        self.pad = (width - before) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(x + y)


class Network(torch.nn.Module):
    """Three stages of 16, 32 and 64 channels."""

    def __init__(self, depth, head):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(16)
        for stage, width in enumerate((16, 32, 64), start=1):
            first = Block(width // 2, width, 2) if stage > 1 else Block(width, width, 1)
            blocks = [first, *(Block(width, width, 1) for _ in range((depth - 2) // 6 - 1))]
            setattr(self, f'layer{stage}', torch.nn.Sequential(*blocks))
        setattr(self, head, torch.nn.Linear(64, 10))
        self.head = head

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return getattr(self, self.head)(x.mean(dim=(2, 3)))


@pytest.mark.parametrize(('depth', 'head'), [(20, 'linear'), (32, 'fc')])
def test_logits_agree_with_torch_and_exports_load(depth, head, tmp_path):
    torch.manual_seed(depth)
    network = Network(depth, head).eval()
    for name, tensor in network.state_dict().items():  # normalizations start as the identity, which hides mistakes
        if name.endswith('running_var') or (name.endswith('weight') and tensor.ndim == 1):
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim == 1:
            tensor.normal_(std=0.1)
    wrapped = {f'module.{k}': v for k, v in network.state_dict().items()}
    torch.save({'state_dict': wrapped, 'best': 0.9}, tmp_path / 'x.th')

    module = models.MODELS.make(f'cifar_resnet{depth}', num_classes=10)
    template = models.abstract(module, (32, 32, 3), num_classes=10, mean=MEAN, std=STD)
    converted = weights.from_state_dict(template, weights.read_state_dict(tmp_path / 'x.th'))
    assert converted.naming == ('torchvision' if head == 'fc' else 'pytorch_cifar')

    images = np.random.default_rng(0).random((4, 32, 32, 3)).astype(np.float32)
    normalized = torch.from_numpy((images - np.float32(MEAN)) / np.float32(STD)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network(normalized).numpy()
    logits = jax.jit(lambda c, x: c(x))(converted.classifier, images)
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(expected - expected[:1]).max() > 1e-2 * np.abs(expected).max()

    state = weights.to_state_dict(converted.classifier, naming=converted.naming)
    weights.write_safetensors(tmp_path / 'x.safetensors', state)
    other = Network(depth, head).eval()
    exported = {k: torch.from_numpy(v) for k, v in weights.read_state_dict(tmp_path / 'x.safetensors').items()}
    other.load_state_dict(exported)  # strict
    with torch.no_grad():
        assert torch.equal(other(normalized), network(normalized))
