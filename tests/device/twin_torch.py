"""PyTorch's side of a paired benchmark: a worker that `twin.py` starts and asks, one line of JSON for each answer.

Commands, and what they are answered by:

=========================================  =============================================================================
`{"command": "about"}`                     versions, device, driver
`{"command": "prepare", "case": {...}}`    builds, compiles and warms up: `ready`, `prepare_s`, `peak_memory_bytes` of
                                           steps after the warm-up (null without CUDA), `note` if there is something to say
`{"command": "round", "seconds": 0.5}`     whole steps for about that long: `seconds_per_step`, `steps`
`{"command": "drop"}`                      frees the case: `dropped`
=========================================  =============================================================================

What fails is answered by `{"error": "one line"}`, and the worker goes on. A step of a case of the kind `'attack'` is one
call of the attack on one batch; `steps` in the case are those of the attack.

Axes: `N` images on the device, `B` of a batch, `H` and `W`; images are `[N, 3, H, W]`, in memory as `[N, H, W, 3]`.
"""

import gc
import itertools
import json
import os
import pathlib
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import metadata
from importlib.util import find_spec

try:
    import torch
    from torch.nn import functional
except ModuleNotFoundError:  # which every command is then answered by
    torch = None

Module = object if torch is None else torch.nn.Module
BATCHES = 4
EPS = 4 / 255
RHO = 0.4
CIFAR = {'cifar_resnet18': ((64, 128, 256, 512), 2), 'cifar_resnet20': ((16, 32, 64), 3)}  # widths, blocks a stage
DRIVER = pathlib.Path('/proc/driver/nvidia/version')


class BasicBlock(Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes.

    Args:
      inputs: Channels of the input.
      width: Channels of the output.
      stride: Stride of the first convolution.
    """

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        relu = torch.nn.ReLU(inplace=True)
        self.branch = torch.nn.Sequential(*conv_bn(inputs, width, 3, stride), relu, *conv_bn(width, width, 3, 1))
        self.shortcut = torch.nn.Sequential(
            *conv_bn(inputs, width, 1, stride) if (inputs, stride) != (width, 1) else ()
        )

    def forward(self, x):
        """Maps features `[B, inputs, H, W]` to features."""
        return functional.relu(self.branch(x) + self.shortcut(x), inplace=True)


def conv_bn(inputs: int, width: int, kernel: int, stride: int) -> tuple:
    """A convolution and its batch normalization."""
    conv = torch.nn.Conv2d(inputs, width, kernel, stride, padding=kernel // 2, bias=False)
    return conv, torch.nn.BatchNorm2d(width)


class Classifier(Module):
    """From images in [0, 1] to float32 logits.

    Args:
      name: Name of a network for small images in `CIFAR`, or one of torchvision.
      precision: `'bfloat16'` by autocast, `'tf32'` or `'float32'`.
    """

    def __init__(self, name: str, precision: str):
        super().__init__()
        self.small = name.startswith('cifar_')
        self.num_classes, self.image_size = (10, 32) if self.small else (1000, 224)
        self.bfloat16 = precision == 'bfloat16'
        if self.small:
            widths, blocks = CIFAR[name]
            inputs = [widths[0], *(width for width in widths for _ in range(blocks))]
            strides = [2 if i % blocks == 0 and i else 1 for i in range(len(inputs) - 1)]
            stages = [BasicBlock(*shape) for shape in zip(inputs, inputs[1:], strides, strict=False)]
            pool = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
            stem = (*conv_bn(3, widths[0], 3, 1), torch.nn.ReLU(inplace=True))
            self.network = torch.nn.Sequential(*stem, *stages, *pool, torch.nn.Linear(widths[-1], self.num_classes))
        else:
            import torchvision

            self.network = torchvision.models.get_model(name, weights=None, num_classes=self.num_classes)
        self.register_buffer('mean', torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer('std', torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        self.to(device(), memory_format=torch.channels_last)

    def forward(self, images):
        """Maps `[B, 3, H, W]` to `[B, num_classes]`."""
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.network(images).float()

    def random_set(self, count: int) -> tuple:
        """Random uint8 images and labels on the device."""
        shape = (count, 3, self.image_size, self.image_size)
        images = torch.randint(256, shape, dtype=torch.uint8, device=device())
        labels = torch.randint(self.num_classes, (count,), device=device())
        return images.contiguous(memory_format=torch.channels_last), labels


def device() -> str:
    """Name of the device."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def training_step(case: Mapping, compiled: Callable) -> Callable[[], None]:
    """A step of SGD with momentum, or of SAM before it, on the next batch of a random set on the device."""
    classifier = Classifier(case['model'], case['precision']).train()
    parameters = list(classifier.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    images, labels = classifier.random_set(BATCHES * case['batch_size'])
    batches = itertools.cycle(torch.randperm(len(labels), device=device()).view(BATCHES, -1).unbind())
    # The usual trick, layers with momentum 0 in the second pass, would compile the network twice: they are put back, and not
    # the counters beside them, which nothing reads and whose type would make many small copies of one.
    statistics = [buffer for name, buffer in classifier.named_buffers() if 'running_' in name]
    kept = [buffer.clone() for buffer in statistics]
    if case['minimizer'] not in ('sgd', 'sam'):
        raise ValueError(f'no minimizer {case["minimizer"]!r} here')

    @compiled
    def loss(positions):
        return functional.cross_entropy(classifier(images[positions].float() / 255), labels[positions])

    def backward(positions):
        optimizer.zero_grad(set_to_none=True)
        loss(positions).backward()

    @torch.no_grad()
    def climb():
        ascent = [parameter.grad for parameter in parameters]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(ascent)))
        torch._foreach_mul_(ascent, RHO / (norm + 1e-12))
        torch._foreach_add_(parameters, ascent)
        torch._foreach_copy_(kept, statistics)
        return ascent

    @torch.no_grad()
    def put_back(ascent):
        torch._foreach_sub_(parameters, ascent)
        torch._foreach_copy_(statistics, kept)

    def step():
        positions = next(batches)
        backward(positions)
        if case['minimizer'] == 'sam':
            ascent = climb()
            backward(positions)
            put_back(ascent)
        optimizer.step()

    return step


def attack_step(case: Mapping, compiled: Callable) -> Callable[[], None]:
    """A call of an attack of torchattacks on one batch of random images."""
    import torchattacks

    # Without requires_grad a compiled backward pass leaves out the gradients of the weights.
    classifier = Classifier(case['model'], case['precision']).eval().requires_grad_(False)
    images, labels = classifier.random_set(case['batch_size'])
    images = images.float() / 255
    model, options = compiled(classifier), {'eps': EPS, 'alpha': EPS / 10, 'steps': case['steps']}
    if case['attack'] == 'bim':
        attack = torchattacks.BIM(model, **options)
    elif case['attack'] == 'mi+di+ti':  # its TIFGSM includes DI, and momentum if `decay` is not 0
        attack = torchattacks.TIFGSM(model, **options, decay=1.0)
    else:
        raise ValueError(f'no attack {case["attack"]!r} here')
    return lambda: attack(images, labels)


class Side:
    """What the commands do, with the case that is prepared."""

    def __init__(self):
        self._step: Callable[[], None] | None = None
        self._pace = 0.0

    def about(self) -> dict:
        """Versions, device, driver."""
        installed = [name for name in ('torch', 'torchvision', 'torchattacks', 'triton') if find_spec(name)]
        found = {'python': platform.python_version(), **{name: metadata.version(name) for name in installed}}
        if not torch.cuda.is_available():
            return {**found, 'device': f'CPU, {torch.get_num_threads()} threads'}
        found |= {'device': torch.cuda.get_device_name(), 'cuda': torch.version.cuda}
        found['cudnn'] = torch.backends.cudnn.version()
        if DRIVER.exists():
            found['driver'] = ' '.join(DRIVER.read_text(encoding='utf-8').splitlines()[0].split())
        return found

    def prepare(self, case: dict) -> dict:
        """Builds, compiles and warms up a case; uncompiled, with a note, where compiling fails."""
        begin = time.perf_counter()
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision('highest' if case['precision'] == 'float32' else 'high')
        torch.backends.cudnn.allow_tf32 = case['precision'] != 'float32'
        build = {'training': training_step, 'attack': attack_step}[case['kind']]
        found = {'ready': True}
        if case['compile']:
            try:
                self._warm_up(build(case, torch.compile))
            except torch._dynamo.exc.TorchDynamoException as error:  # such as no compiler for C++ or C
                traceback.print_exc()
                found['note'] = f'not compiled: {one_line(error)}'
        if self._step is None:
            self.drop()
            self._warm_up(build(case, lambda function: function))
        return {**found, 'prepare_s': time.perf_counter() - begin, 'peak_memory_bytes': self._peak}

    def _warm_up(self, step: Callable[[], None]) -> None:
        timed(step, 2)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._pace = timed(step, max(1, min(50, int(0.2 / timed(step, 1)))))
        self._peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        self._step = step

    def round(self, seconds: float) -> dict:
        """Times whole steps."""
        steps = max(1, round(seconds / self._pace))
        return {'seconds_per_step': timed(self._step, steps), 'steps': steps}

    def drop(self) -> dict:
        """Frees the case and what was compiled."""
        self._step = None
        torch._dynamo.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return {'dropped': True}


def timed(step: Callable[[], None], steps: int) -> float:
    """Seconds of one of some steps that follow each other without waiting."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronize()
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize()
    return (time.perf_counter() - begin) / steps


def one_line(error: Exception) -> str:
    """An error in at most 300 characters."""
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:300]


def main() -> None:
    """Answers commands until the input ends."""
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    side = None if torch is None else Side()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = (
                getattr(side, request.pop('command'))(**request) if side else {'error': 'torch is not installed here'}
            )
        except Exception as error:
            traceback.print_exc()
            answer = {'error': one_line(error)}
        print(json.dumps(answer), file=answers)


if __name__ == '__main__':
    main()
