"""One process of `test_many_devices.py`, with all devices of all of them: `worker.py steps|loaders|together [flags of join]`.

`steps` trains a small network in several modes, and prints for each the mode, the number of devices, the norm of the weights
and the loss. `loaders` trains an epoch of CIFAR-10 with each loader, and prints for each its name, the number of devices, the
hash of the weights and the loss. `together` fits two networks at once, goes on after a stop, and prints the number of epochs
in the metrics of each as the first process reads them, and the norms of the weights.
"""

import sys

import jax


def steps():
    train = data.SOURCES.make('digits').train.take(np.arange(64))
    tx = optim.Optimizer(optim.rfn_sam(0.3), optim.momentum_sgd(0.1, momentum=0.9, weight_decay=5e-4))
    classifier = models.initialize(MODULE, rng.key_for(0, 'test'), (8, 8, 1), num_classes=10)
    host = training.create(jax.device_get(classifier), tx)
    for group_size, shard in ((None, 0), (None, 1), (None, 2), (4, 0), (16, 0)):
        mesh = sharding.data_mesh(fsdp=2 if shard == 2 and jax.device_count() > 1 else 1)
        step = training.train_step(
            MODULE, (0.5,), (0.3,), tx, lambda x, k: x, mesh, group_size=group_size, shard_state=bool(shard)
        )
        state = sharding.place(host, sharding.of_state(host, mesh, shard=bool(shard)))
        key = sharding.replicate_key(rng.key_for(0, 'augment'), mesh)
        for t in range(20):
            batch = sharding.shard_batch(batch_of(train, np.arange(32) + t), mesh)
            state, metrics = step(state, batch, key)
        norm = jax.jit(optax.tree.norm, out_shardings=sharding.replicated(mesh))(state.params)
        print(f'{group_size}-{shard} {mesh.size} {float(norm):.7g} {float(metrics["loss"]):.7g}', flush=True)


def loaders():
    splits = data.SOURCES.make('cifar10', train_examples=1024, validation_examples=1, test_examples=1)
    shared = {'num_classes': 10, 'mean': splits.info.mean, 'std': splits.info.std}
    initial = models.initialize(MODULE, rng.key_for(0, 'test'), splits.info.image_shape, **shared)
    recipe = training.Recipe(
        epochs=1, batch_size=32, learning_rate=0.05, momentum=0.9, weight_decay=5e-4, decay_epochs=(), decay_factor=0.1,
        augmentation=data.Augmentation(crop_padding=4, flip=True), minimizer={'name': 'rfn_sam', 'rho': 0.2},
    )  # fmt: skip
    mesh = sharding.data_mesh()
    for streaming in (False, True):
        loader = data.loader(splits.train, splits.info, batch_size=32, seed=0, mesh=mesh, streaming=streaming)
        program = training.program(initial, recipe, steps_per_epoch=loader.steps_per_epoch, mesh=mesh)
        state = training.create(jax.device_get(initial), program.tx)
        state = sharding.place(state, sharding.of_state(state, mesh, shard=False))
        trainee = epoch.Trainee('test', loader, state)
        (figures,) = epoch.run(program, [trainee], 1)
        weights = jax.tree.map(lambda leaf: leaf.addressable_data(0), trainee.state.variables)
        print(type(loader).__name__, mesh.size, digests.of_arrays(weights), f'{figures["loss"]:.5f}', flush=True)


def together():
    train = data.SOURCES.make('digits').train.take(np.arange(64))
    mesh, directory = sharding.data_mesh(), pathlib.Path(tempfile.mkdtemp())
    initial = [models.initialize(MODULE, rng.key_for(0, 'test', seed), (8, 8, 1), num_classes=10) for seed in (0, 1)]
    loader = data.loader(train, train.info(), batch_size=16, seed=0, mesh=mesh)
    runs = [
        training.Run(classifier, data.with_seed(loader, seed), directory / str(seed), f'test {seed}')
        for seed, classifier in enumerate(initial)
    ]
    for epochs in (1, 2):
        recipe = training.Recipe(
            epochs=epochs, batch_size=16, learning_rate=0.005, momentum=0.9, weight_decay=5e-4, decay_epochs=(),
            decay_factor=0.1, minimizer={'name': 'rfn_sam', 'rho': 0.05},
        )  # fmt: skip
        program = training.program(initial[0], recipe, steps_per_epoch=4, mesh=mesh)
        training.fit(runs, train, program, keep_all=True, batch_size=32, console=console.Console(quiet=True))

    @processes.on_first
    def found():
        lines = [len((run.directory / 'metrics.jsonl').read_text().splitlines()) for run in runs]
        stores = [training.CheckpointStore(run.directory / 'checkpoints') for run in runs]
        saved = [store.restore_classifier(2, initial[0]).variables for store in stores]
        return [*lines, *(f'{float(np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(v)))):.7g}' for v in saved)]

    print(*found(), flush=True)


if __name__ == '__main__':
    from rfn_jax.core import cluster

    flags = dict(argument.lstrip('-').split('=') for argument in sys.argv[2:])
    if flags:
        cluster.join(flags['coordinator'], int(flags['processes']), int(flags['process']))

    import pathlib
    import tempfile

    import numpy as np
    import optax
    from batch_of import batch_of

    from rfn_jax import data, models, optim, training
    from rfn_jax.core import console, digests, processes, rng, sharding
    from rfn_jax.training import epoch

    sharding.SMALLEST_SHARDED = 1
    MODULE = models.MODELS.make('resnet', num_classes=10, stage_sizes=(1,), widths=(4,))
    {'steps': steps, 'loaders': loaders, 'together': together}[sys.argv[1]]()
    cluster.leave()
