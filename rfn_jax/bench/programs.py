"""The programs to time: the compiled training step of `rfn-jax train` and the compiled attack of `rfn-jax craft`.

Axes: `B` images of a batch, `k` steps of a call.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from rfn_jax import attacks, data, models, optim, training
from rfn_jax.bench import hardware
from rfn_jax.core import errors, rng, sharding
from rfn_jax.models import sizes

BATCHES = 4  # different batches of synthetic images


@dataclasses.dataclass
class Program:
    """A compiled program, with its arguments on the devices.

    Attributes:
      start: Starts one call without waiting for it.
      wait: Waits for the last call.
      steps: Steps in a call.
      batch_size: Images in a step.
      model_flops: Floating-point operations of the network that the method requires in one call, two for each multiply-add;
        operations that the compiler adds or saves do not count.
      compile_s: Seconds spent tracing and compiling.
      memory_bytes: Memory for arguments, results and temporary values of the program on one device.
      period: Number of calls until the work repeats; above 1 for minimizers that do not ascend at every step.
    """

    start: Callable[[], None]
    wait: Callable[[], None]
    steps: int
    batch_size: int
    model_flops: float
    compile_s: float
    memory_bytes: int
    period: int = 1


def training_program(
    model: str, minimizer: Mapping[str, object], *, batch_size: int, precision: str, steps_per_call: int, mesh: Mesh
) -> Program:
    """Compiles the training step of a named model on random images, which are flipped, and cropped if they are small.

    Args:
      model: A model that is fully specified by its name.
      minimizer: Name and options of the minimizer, as `optim.MINIMIZERS` takes them.
      batch_size: B.
      precision: Name in `PRECISIONS`.
      steps_per_call: k; with 1, a call makes one step, otherwise it is a `lax.scan`.
      mesh: The devices.

    Raises:
      InputError: A name is unknown, or the batch does not divide evenly over the devices.
      RunError: There is not enough memory.
    """
    classifier, shape, multiply_adds = _classifier(model, precision)
    descent = optim.momentum_sgd(0.01, momentum=0.9, weight_decay=5e-4)
    tx = optim.Optimizer(optim.MINIMIZERS.make_from(minimizer), descent)
    augmentation = data.CropAndFlip(crop_padding=4 if shape[0] <= 64 else 0, flip=True)
    scan = steps_per_call > 1
    step = training.train_step(classifier.module, classifier.mean, classifier.std, tx, augmentation, mesh, scan=scan)
    state = training.create(classifier, tx)
    state = sharding.place(state, sharding.of_state(state, mesh, shard=False))
    images, labels = _random_images(BATCHES * batch_size, shape, classifier.num_classes)
    batches = data.Batch(images, labels, np.arange(len(labels), dtype=np.uint32))
    batches = jax.tree.map(lambda leaf: leaf.reshape(BATCHES, batch_size, *leaf.shape[1:]), batches)
    if scan:
        batch = jax.tree.map(lambda leaf: np.resize(leaf, (steps_per_call, *leaf.shape[1:])), batches)
        batch = jax.device_put(batch, sharding.rows_sharding(mesh))
    else:
        batch = sharding.shard_batch(jax.tree.map(lambda leaf: leaf[0], batches), mesh)
    key = jax.device_put(rng.key_for(0, 'bench'), sharding.replicated(mesh))
    with hardware.PRECISIONS[precision].active():
        compiled, compile_s = _compile(step, state, batch, key)
    latest = [state]

    def start():
        latest[0], _ = compiled(latest[0], batch, key)

    ascent_period = minimizer.get('k', 5) if minimizer['name'].endswith('looksam') else 1
    ascents_per_step = 0 if minimizer['name'] == 'sgd' else minimizer.get('ascent_steps', 1) / ascent_period
    return Program(
        start=start,
        wait=lambda: jax.block_until_ready(latest[0]),
        steps=steps_per_call,
        batch_size=batch_size,
        # A gradient takes a forward pass and a backward pass of twice the work.
        model_flops=2 * multiply_adds * 3 * (1 + ascents_per_step) * batch_size * steps_per_call,
        compile_s=compile_s,
        memory_bytes=_memory_bytes(compiled),
        period=ascent_period // math.gcd(ascent_period, steps_per_call),
    )


def attack_program(model: str, attack: Mapping[str, object], *, batch_size: int, precision: str, mesh: Mesh) -> Program:
    """Compiles an attack on a named model with random weights, on random images.

    Args:
      model: A model that is fully specified by its name.
      attack: Name and options of the attack, as `attacks.make_from` takes them.
      batch_size: B.
      precision: Name in `PRECISIONS`.
      mesh: The devices.

    Raises:
      InputError: A name is unknown, or the attack mixes in other images, for which there is no benchmark.
      RunError: There is not enough memory.
    """
    classifier, shape, multiply_adds = _classifier(model, precision)
    made = attacks.make_from(attack)
    if made.needs_pool:
        raise errors.InputError(f'attack {made.name!r} needs a pool of images, which the benchmark does not provide')
    images, labels = _random_images(batch_size, shape, classifier.num_classes)
    surrogate = jax.device_put(classifier, sharding.replicated(mesh))
    batch = sharding.shard_batch((images.astype(np.float32) / np.float32(255), labels), mesh)
    keys = jax.device_put(
        rng.example_keys(rng.key_for(0, 'bench'), np.arange(batch_size)), sharding.batch_sharding(mesh)
    )
    with hardware.PRECISIONS[precision].active():
        compiled, compile_s = _compile(jax.jit(made.__call__), surrogate, *batch, keys)
    latest = [batch[0]]

    def start():
        latest[0] = compiled(surrogate, *batch, keys)

    return Program(
        start=start,
        wait=lambda: jax.block_until_ready(latest[0]),
        steps=1,
        batch_size=batch_size,
        # The gradient with respect to the images takes a forward pass and a backward pass of equal work, since the gradient
        # with respect to the weights is not needed.
        model_flops=2 * multiply_adds * 2 * made.gradient_evaluations * batch_size,
        compile_s=compile_s,
        memory_bytes=_memory_bytes(compiled),
    )


def _classifier(model: str, precision: str) -> tuple[models.Classifier, tuple[int, int, int], int]:
    """Returns a named model with fresh weights, the shape of its usual images, and its multiply-adds per image."""
    size = sizes.table().get(model)
    if size is None:
        raise errors.unknown_name('model for a benchmark', model, sizes.table())
    if precision not in hardware.PRECISIONS:
        raise errors.unknown_name('precision', precision, hardware.PRECISIONS)
    shape = (size.image_size, size.image_size, 3)
    spec = {'name': model, 'dtype': hardware.PRECISIONS[precision].dtype.name}
    module = models.from_spec(spec, num_classes=size.num_classes)
    statistics = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}
    classifier = models.initialize(module, rng.key_for(0, 'bench'), shape, num_classes=size.num_classes, **statistics)
    return classifier, shape, sizes.multiply_adds(classifier, shape)


def _random_images(count: int, shape: tuple[int, int, int], num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random uint8 images `[count, H, W, C]` and int32 labels `[count]`."""
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(count, *shape), dtype=np.uint8)
    return images, generator.integers(num_classes, size=count, dtype=np.int32)


def _compile(function, *arguments) -> tuple[jax.stages.Compiled, float]:
    start = time.perf_counter()
    try:
        compiled = function.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        raise errors.RunError('not enough device memory to compile; use a smaller batch size') from error
    return compiled, time.perf_counter() - start


def _memory_bytes(compiled: jax.stages.Compiled) -> int:
    stats = compiled.memory_analysis()
    return (
        stats.temp_size_in_bytes + stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    )
