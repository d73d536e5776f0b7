"""Compiles training steps and attacks for TPUs that are not there, and prints their memory and their collectives.

    pip install "libtpu==0.0.42.*"      # the version that the extra `jax[tpu]` of the installed jax asks for
    python tests/benchmarks/compile_for_tpu.py --topology=v5p:2x2x1 --devices=1 --models=resnet50,vit_b_16 --out=memory.json

The compiler of libtpu needs no TPU: `jax.experimental.topologies` describes the devices. Nothing is executed, so this says
what fits and what is communicated, and nothing about speed.
"""

import argparse
import collections
import dataclasses
import json
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from rfn_jax import attacks, data, models, optim, training
from rfn_jax.core import rng, sharding

SHAPE, CLASSES = (224, 224, 3), 1000
COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'collective-permute', 'all-to-all')


@dataclasses.dataclass(frozen=True)
class Case:
    """One program to compile.

    Attributes:
      program: `'sgd'`, `'rfn_sam'` or `'bim'`.
      model: Name in `models.MODELS`.
      batch_size: Images of the global batch.
      rematerialize: See `training.Recipe`.
      shard_parameters: See `training.Recipe`.
    """

    program: str
    model: str
    batch_size: int
    rematerialize: bool = False
    shard_parameters: bool = False


def main() -> None:
    """Compiles every combination that the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--topology', default='v5p:2x2x1', help='name of a topology, as libtpu knows it')
    parser.add_argument('--devices', type=int, help='how many of its devices to use; by default all')
    parser.add_argument('--models', default='resnet50,vit_b_16')
    parser.add_argument('--programs', default='sgd,rfn_sam')
    parser.add_argument('--batch-size', type=int, default=256)
    parser.add_argument('--rematerialize', default='no,yes')
    parser.add_argument('--shard-parameters', action='store_true')
    parser.add_argument('--out')
    arguments = parser.parse_args()
    devices = topologies.get_topology_desc(platform='tpu', topology_name=arguments.topology).devices
    mesh = sharding.data_mesh(devices[: arguments.devices])
    # Models choose the convolution by the platform of the process, which is a CPU here.
    jax.default_backend = lambda: 'tpu'
    rows = []
    for model in arguments.models.split(','):
        for program in arguments.programs.split(','):
            for rematerialize in arguments.rematerialize.split(',') if program != 'bim' else ('no',):
                case = Case(program, model, arguments.batch_size, rematerialize == 'yes', arguments.shard_parameters)
                about = {'topology': arguments.topology, 'devices': mesh.size, 'jax': jax.__version__}
                rows.append({**about, **dataclasses.asdict(case), **measured(case, mesh)})
                print(json.dumps(rows[-1]), flush=True)
                if arguments.out:
                    with open(arguments.out, 'w', encoding='utf-8') as file:
                        json.dump(rows, file, indent=1)


def measured(case: Case, mesh: Mesh) -> dict[str, object]:
    """The memory of the compiled program on one device, its collectives, and the seconds that its compilation took."""
    start = time.perf_counter()
    lowered = lower(case, mesh)
    traced = time.perf_counter()
    compiled = lowered.compile()
    stats = compiled.memory_analysis()
    counts = collections.Counter(re.findall(rf' ({"|".join(COLLECTIVES)})(?:-start)?\(', compiled.as_text()))
    total = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return {
        'temporary_gb': round(stats.temp_size_in_bytes / 1e9, 2),
        'total_gb': round((total + stats.temp_size_in_bytes) / 1e9, 2),
        'collectives': dict(sorted(counts.items())),
        'trace_s': round(traced - start, 1),
        'compile_s': round(time.perf_counter() - traced, 1),
    }


def lower(case: Case, mesh: Mesh) -> jax.stages.Lowered:
    """Traces the program of a case with shapes in place of values."""
    module = models.from_spec({'name': case.model, 'dtype': 'bfloat16'}, num_classes=CLASSES)
    classifier = models.abstract(module, SHAPE, num_classes=CLASSES)
    batch = sharding.batch_sharding(mesh)
    key = jax.eval_shape(lambda: rng.key_for(0, 'compile'))

    def placed(shape, dtype, placement=batch):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=placement)

    labels = placed((case.batch_size,), jnp.int32)
    images = (case.batch_size, *SHAPE)
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
