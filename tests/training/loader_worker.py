"""One process of `test_processes.py`: an epoch of CIFAR-10 with each loader, on all devices of all processes.

Prints, for each loader, its name, the number of devices and the hash of the weights after the epoch.
"""

import sys

import jax

EXAMPLES = 1024

if __name__ == '__main__':
    address, count, index = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if count > 1:
        jax.distributed.initialize(address, count, index)

    from rfn_jax import data, models, training
    from rfn_jax.core import digests, rng, sharding
    from rfn_jax.training import epoch

    splits = data.SOURCES.make('cifar10', train_examples=EXAMPLES, validation_examples=1, test_examples=1)
    module = models.MODELS.make('resnet', num_classes=10, stage_sizes=(1,), widths=(4,))
    shared = {'num_classes': 10, 'mean': splits.info.mean, 'std': splits.info.std}
    initial = models.initialize(module, rng.key_for(0, 'test'), splits.info.image_shape, **shared)
    recipe = training.Recipe(
        epochs=1, batch_size=32, learning_rate=0.05, momentum=0.9, weight_decay=5e-4, decay_epochs=(), decay_factor=0.1,
        crop_padding=4, flip=True, minimizer={'name': 'rfn_sam', 'rho': 0.2},
    )  # fmt: skip
    mesh = sharding.data_mesh()
    for streaming in (False, True):
        loader = data.loader(splits.train, splits.info, batch_size=32, seed=0, mesh=mesh, streaming=streaming)
        program = training.program(initial, recipe, steps_per_epoch=loader.steps_per_epoch, mesh=mesh)
        state = training.create(jax.device_get(initial), program.tx)
        state = sharding.place(state, sharding.of_state(state, mesh, shard=False))
        state, figures = epoch.run(program, state, loader, 1, name='test')
        weights = jax.tree.map(lambda leaf: leaf.addressable_data(0), state.variables)
        print(type(loader).__name__, mesh.size, digests.of_arrays(weights), f'{figures["loss"]:.5f}', flush=True)
