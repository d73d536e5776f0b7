"""Compiles training steps and attacks for TPUs that are not there, and prints their memory and their collectives.

    pip install "libtpu==0.0.42.*"      # the version that the extra `jax[tpu]` of the installed jax asks for
    python tests/benchmarks/compile_for_tpu.py --topology=v5p:2x2x1 --devices=1 --models=resnet50,vit_b_16 --out=memory.json
    python tests/benchmarks/compile_for_tpu.py --topology=v5e:16x16 --models=resnet50 --batch-size=8192 --out=pod.json \
        --cases=rfn_sam,rfn_sam:device,rfn_sam:shard,bim

The compiler of libtpu needs no TPU: `jax.experimental.topologies` describes the devices. Nothing is executed, so this says
what fits and what is communicated, and nothing about speed. A case is a program (sgd, rfn_sam or bim), followed by what is
different in it: `device` (a perturbation for each device), `remat` (rematerialize) and `shard` (shard_parameters).
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from rfn_jax import attacks, data, models, optim, training
from rfn_jax.core import rng, sharding

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import collectives

CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Case:
    """One program to compile.

    Attributes:
      program: `'sgd'`, `'rfn_sam'` or `'bim'`.
      model: Name in `models.MODELS`.
      batch_size: Images of the global batch.
      image_size: Height and width of an image.
      group_size: See `training.Recipe`.
      rematerialize: See `training.Recipe`.
      shard_parameters: See `training.Recipe`.
    """

    program: str
    model: str
    batch_size: int
    image_size: int
    group_size: str | None = None
    rematerialize: bool = False
    shard_parameters: bool = False


def main() -> None:
    """Compiles every combination that the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--topology', default='v5p:2x2x1', help='as libtpu names it, or cpu:NUMBER')
    parser.add_argument('--devices', type=int, help='how many of its devices to use; by default all')
    parser.add_argument('--models', default='resnet50,vit_b_16')
    parser.add_argument('--cases', default='sgd,sgd:remat,rfn_sam,rfn_sam:remat')
    parser.add_argument('--image-size', type=int, default=224)
    parser.add_argument('--batch-size', type=int, default=256, help='images of all devices together')
    parser.add_argument(
        '--effort', type=float, default=0.0, help='of the compiler, from -1 (quick) to 1; 0 as in real runs'
    )
    parser.add_argument('--out', help='a JSON file, to which rows are added')
    parser.add_argument('--text', type=pathlib.Path, help='a folder for the optimized programs')
    arguments = parser.parse_args()
    mesh = sharding.data_mesh(described(arguments.topology)[: arguments.devices])
    # Models choose the convolution by the platform of the process, which is a CPU here.
    jax.default_backend = lambda: 'tpu'
    jax.config.update('jax_exec_time_optimization_effort', arguments.effort)
    out = arguments.out and pathlib.Path(arguments.out)
    rows = json.loads(out.read_text(encoding='utf-8')) if out and out.exists() else []
    about = {'topology': arguments.topology, 'devices': mesh.size, 'effort': arguments.effort, **versions()}
    for model in arguments.models.split(','):
        for name in arguments.cases.split(','):
            case = named(name, model, arguments.batch_size, arguments.image_size)
            found, text = measured(case, mesh)
            rows.append({**about, **dataclasses.asdict(case), **found})
            print(json.dumps(rows[-1]), flush=True)
            if arguments.text:
                (arguments.text / f'{model}_{name.replace(":", "_")}_{mesh.size}.txt').write_text(
                    text, encoding='utf-8'
                )
            if out:
                out.write_text(json.dumps(rows, indent=1) + '\n', encoding='utf-8')


def described(topology: str) -> list:
    """The devices of a topology, or so many virtual devices of the CPU for `'cpu:256'`."""
    if not topology.startswith('cpu:'):
        return topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
    quick = f' --xla_force_host_platform_device_count={topology[4:]} --xla_backend_optimization_level=0'
    os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + quick
    return jax.devices('cpu')


def versions() -> dict[str, str]:
    """The versions of jax and of the compiler."""
    return {'jax': jax.__version__, 'libtpu': importlib.metadata.version('libtpu')}


def named(name: str, model: str, *sizes: int) -> Case:
    """The case with a name such as `'rfn_sam:device:remat'`."""
    program, *more = name.split(':')
    if unknown := set(more) - {'device', 'remat', 'shard'}:
        raise SystemExit(f'unknown in the case {name}: {", ".join(sorted(unknown))}')
    group_size = 'device' if 'device' in more else None
    return Case(program, model, *sizes, group_size, 'remat' in more, 'shard' in more)


def measured(case: Case, mesh: Mesh) -> tuple[dict[str, object], str]:
    """The memory of the compiled program on one device, its collectives and the seconds that it took; and its text."""
    start = time.perf_counter()
    lowered = lower(case, mesh)
    traced = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - traced
    stats, text = compiled.memory_analysis(), compiled.as_text()
    total = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    found = {
        'temporary_gb': round(stats.temp_size_in_bytes / 1e9, 2),
        'total_gb': round((total + stats.temp_size_in_bytes) / 1e9, 2),
        'collectives': collectives.of(text),
        'trace_s': round(traced - start, 1),
        'compile_s': round(seconds, 1),
    }
    return found, text


def lower(case: Case, mesh: Mesh) -> jax.stages.Lowered:
    """Traces the program of a case with shapes in place of values."""
    module = models.from_spec({'name': case.model, 'dtype': 'bfloat16'}, num_classes=CLASSES)
    shape = (case.image_size, case.image_size, 3)
    classifier = models.abstract(module, shape, num_classes=CLASSES)
    batch = sharding.batch_sharding(mesh)
    key = jax.eval_shape(lambda: rng.key_for(0, 'compile'))

    def placed(shape, dtype, placement=batch):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=placement)

    labels = placed((case.batch_size,), jnp.int32)
    images = (case.batch_size, *shape)
    if case.program == 'bim':
        keys = jax.eval_shape(lambda key: rng.example_keys(key, np.arange(case.batch_size)), key)
        keys = placed(keys.shape, keys.dtype)
        surrogate = jax.tree.map(lambda leaf: placed(leaf.shape, leaf.dtype, sharding.replicated(mesh)), classifier)
        attack = attacks.make_from({'name': 'bim', 'eps': 4 / 255, 'steps': 50})
        return jax.jit(attack.__call__).lower(surrogate, placed(images, jnp.float32), labels, keys)
    options = {'rho': 0.4} if case.program == 'rfn_sam' else {}
    descent = optim.momentum_sgd(0.1, momentum=0.9, weight_decay=1e-4)
    tx = optim.Optimizer(optim.MINIMIZERS.make_from({'name': case.program, **options}), descent)
    step = training.train_step(
        module,
        classifier.mean,
        classifier.std,
        tx,
        data.CropAndFlip(flip=True),
        mesh,
        group_size=case.group_size,
        shard_state=case.shard_parameters,
        rematerialize=case.rematerialize,
    )
    state = jax.eval_shape(lambda c: training.create(c, tx), classifier)
    state = jax.tree.map(
        lambda leaf, placement: placed(leaf.shape, leaf.dtype, placement),
        state,
        sharding.of_state(state, mesh, shard=case.shard_parameters),
    )
    ids = placed((case.batch_size,), jnp.uint32)
    key = placed(key.shape, key.dtype, sharding.replicated(mesh))
    return step.lower(state, data.Batch(placed(images, jnp.uint8), labels, ids), key)


if __name__ == '__main__':
    main()
