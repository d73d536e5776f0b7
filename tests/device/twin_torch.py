"""The PyTorch side of a paired benchmark: a worker that answers each command of `twin.py` with one line of JSON.

`{"command": "about"}` is answered with versions and the device; `{"command": "prepare", "case": {...}}`, which builds,
compiles and warms up, with `ready`, `prepare_s`, `peak_memory_bytes` of the later steps (null on a CPU), and sometimes a
`note`; `{"command": "round", "seconds": 0.5}`, which runs whole steps for about that long, with `seconds_per_step` and
`steps`; `{"command": "drop"}`, which frees the case, with `dropped`. A failure is answered with `{"error": "one line"}`, and
the worker continues. Cases are as in `twin.CASES`. A step of the kind `'attack'` is one call of the attack on one batch.

Axes: `N` images on the device, `B` images in a batch, `H` rows and `W` columns. Networks take `[B, 3, H, W]`, stored in
memory as `[B, H, W, 3]`.
"""

import gc
import itertools
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import metadata

try:
    import torch
    from torch.nn import functional
except ModuleNotFoundError:  # reported in the answer to every command
    torch = None

Module = object if torch is None else torch.nn.Module
BATCHES = 4  # number of batches of random images on the device
RHO = 0.4
PADDING = 4  # pixels around small images, before they are cropped
# Widths of the stages, and blocks in each.
SMALL = {'cifar_resnet18': ((64, 128, 256, 512), 2), 'cifar_resnet20': ((16, 32, 64), 3)}


class Classifier(Module):
    """From images to float32 logits: a network in `SMALL` for small images, or one of torchvision."""

    def __init__(self, name: str, precision: str):
        super().__init__()
        self.small = name in SMALL
        self.num_classes, self.image_size = (10, 32) if self.small else (1000, 224)
        self.network = small_network(*SMALL[name]) if self.small else torchvision_network(name)
        self.bfloat16 = precision == 'bfloat16'
        self.register_buffer('mean', torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer('std', torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        self.to(device(), memory_format=torch.channels_last)

    def normalize(self, images):
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def logits(self, normalized):
        with torch.autocast(device(), torch.bfloat16, enabled=self.bfloat16):
            return self.network(normalized).float()

    def forward(self, images):
        return self.logits(self.normalize(images))

    def random_set(self, count: int) -> tuple:
        images = torch.randint(256, (count, self.image_size, self.image_size, 3), dtype=torch.uint8, device=device())
        return images, torch.randint(self.num_classes, (count,), device=device())


class BasicBlock(Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution if the shape changes, as in torchvision."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        relu = torch.nn.ReLU(inplace=True)
        self.branch = torch.nn.Sequential(*conv_bn(inputs, width, 3, stride), relu, *conv_bn(width, width, 3, 1))
        changes = (inputs, stride) != (width, 1)
        self.shortcut = torch.nn.Sequential(*conv_bn(inputs, width, 1, stride) if changes else ())

    def forward(self, x):
        return functional.relu(self.branch(x) + self.shortcut(x), inplace=True)


def conv_bn(inputs: int, width: int, kernel: int, stride: int) -> tuple:
    conv = torch.nn.Conv2d(inputs, width, kernel, stride, padding=kernel // 2, bias=False)
    return conv, torch.nn.BatchNorm2d(width)


def small_network(widths: tuple[int, ...], blocks: int) -> Module:
    """A residual network for 32x32 images: torchvision's, but with a 3x3 stem of stride 1 and no pooling after it."""
    layers, inputs = [*conv_bn(3, widths[0], 3, 1), torch.nn.ReLU(inplace=True)], widths[0]
    for width in widths:
        for number in range(blocks):
            layers.append(BasicBlock(inputs, width, 2 if number == 0 and width > widths[0] else 1))
            inputs = width
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(inputs, 10))


def torchvision_network(name: str) -> Module:
    from torchvision import models

    return models.get_model(name, weights=None)


def device() -> str:
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def training_step(case: Mapping, compiled: Callable) -> Callable[[], None]:
    """A step of SGD with momentum, with or without SAM, on the next batch of a random set on the device."""
    if case['work'] not in ('sgd', 'rfn_sam'):
        raise ValueError(f'unknown training {case["work"]!r}')
    classifier = Classifier(case['model'], case['precision']).train()
    parameters = list(classifier.parameters())
    fused = device() == 'cuda'
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4, fused=fused)
    images, all_labels = classifier.random_set(BATCHES * case['batch_size'])
    pad, size = PADDING if classifier.small else 0, classifier.image_size
    padded = functional.pad(images, (0, 0, pad, pad, pad, pad))  # once, so that crops are plain reads
    batches = itertools.cycle(torch.randperm(len(images), device=device()).view(BATCHES, -1).unbind())
    # The usual trick for the second pass, setting the momentum of the layers to 0, would compile the network twice. Instead,
    # the running statistics are restored with the parameters, in a launch or two. Nothing reads the batch counters.
    moved = parameters + [buffer for name, buffer in classifier.named_buffers() if 'running_' in name]
    saved = [tensor.detach().clone() for tensor in moved]

    @compiled
    def batch(positions):
        count = (len(positions), 1)
        rows = columns = torch.arange(size, device=device()).expand(len(positions), size)
        if pad:
            rows = rows + torch.randint(2 * pad + 1, count, device=device())
            columns = columns + torch.randint(2 * pad + 1, count, device=device())
        columns = torch.where(torch.rand(count, device=device()) < 0.5, columns.flip(1), columns)
        cropped = padded[positions[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return classifier.normalize(cropped.float() / 255), all_labels[positions]

    @compiled
    def loss(images, labels):
        return functional.cross_entropy(classifier.logits(images), labels)

    def gradient(images, labels):
        optimizer.zero_grad(set_to_none=True)
        loss(images, labels).backward()

    @torch.no_grad()
    def ascend():
        torch._foreach_copy_(saved, moved)
        ascent = [parameter.grad for parameter in parameters]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(ascent)))
        torch._foreach_mul_(ascent, RHO / (norm + 1e-12))
        torch._foreach_add_(parameters, ascent)

    @torch.no_grad()
    def restore():
        torch._foreach_copy_(moved, saved)

    def step():
        examples = batch(next(batches))
        gradient(*examples)
        if case['work'] == 'rfn_sam':
            ascend()
            gradient(*examples)
            restore()
        optimizer.step()

    return step


def attack_step(case: Mapping, compiled: Callable) -> Callable[[], None]:
    """A call of an attack of torchattacks on one batch of random images."""
    import torchattacks

    # Without `requires_grad`, the backward pass skips the gradients of the weights, as careful users do.
    classifier = Classifier(case['model'], case['precision']).eval().requires_grad_(False)
    images, labels = classifier.random_set(case['batch_size'])
    images = images.permute(0, 3, 1, 2).float() / 255
    model = compiled(classifier)
    if case['work'] == 'bim-50':
        attack = torchattacks.BIM(model, eps=4 / 255, alpha=0.4 / 255, steps=50)
    elif case['work'] == 'mi+di+ti-10':  # TIFGSM includes DI, and MI through its `decay`
        attack = torchattacks.TIFGSM(model, eps=16 / 255, alpha=1.6 / 255, steps=10, decay=1.0)
    else:
        raise ValueError(f'unknown attack {case["work"]!r}')
    return lambda: attack(images, labels)


class Side:
    def __init__(self):
        self._step: Callable[[], None] | None = None
        self._pace = 0.0

    def about(self) -> dict:
        answer = {'python': platform.python_version()}
        for name in ('torch', 'torchvision', 'torchattacks', 'triton', 'nvidia-cudnn-cu13'):
            try:
                answer[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        if device() == 'cpu':
            return {**answer, 'device': f'CPU, {torch.get_num_threads()} threads', 'cuda': None}
        cudnn = torch.backends.cudnn.version()
        return {**answer, 'device': torch.cuda.get_device_name(), 'cuda': torch.version.cuda, 'cudnn': cudnn}

    def prepare(self, case: dict) -> dict:
        """Builds, compiles and warms up a case; if it cannot be compiled, it stays uncompiled, with a note."""
        begin, answer = time.perf_counter(), {'ready': True}
        self.drop()
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = case['precision'] != 'float32'
        build = {'training': training_step, 'attack': attack_step}[case['kind']]
        if case['compile']:
            try:
                self._warm_up(build(case, torch.compile))
            except torch._dynamo.exc.TorchDynamoException as error:  # for example, there is no C compiler
                traceback.print_exc()
                answer['note'] = f'not compiled: {one_line(error)}'
        if self._step is None:
            self.drop()
            self._warm_up(build(case, lambda function: function))
        return {**answer, 'prepare_s': time.perf_counter() - begin, 'peak_memory_bytes': self._peak}

    def _warm_up(self, step: Callable[[], None]) -> None:
        timed(step, 2)
        if device() == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        self._pace = timed(step, max(1, min(50, int(0.3 / timed(step, 1)))))
        self._peak = torch.cuda.max_memory_allocated() if device() == 'cuda' else None
        self._step = step

    def round(self, seconds: float) -> dict:
        steps = max(1, round(seconds / self._pace))
        return {'seconds_per_step': timed(self._step, steps), 'steps': steps}

    def drop(self) -> dict:
        self._step = None
        torch._dynamo.reset()
        gc.collect()
        if device() == 'cuda':
            torch.cuda.empty_cache()
        return {'dropped': True}


def timed(step: Callable[[], None], steps: int) -> float:
    """Seconds per step, over steps that follow each other without synchronization."""
    synchronize = torch.cuda.synchronize if device() == 'cuda' else lambda: None
    synchronize()
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize()
    return (time.perf_counter() - begin) / steps


def one_line(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:300]


def main() -> None:
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)  # output of libraries is not an answer
    side = None if torch is None else Side()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {'error': 'torch is not installed here'}
            if side is not None:
                answer = getattr(side, request.pop('command'))(**request)
        except Exception as error:
            traceback.print_exc()
            answer = {'error': one_line(error)}
        print(json.dumps(answer), file=answers)


if __name__ == '__main__':
    main()
