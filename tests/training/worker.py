"""One process of `test_processes.py`: trains a small network on all devices of all processes and prints its norm."""

import sys

import jax

if __name__ == '__main__':
    address, count, index = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if count > 1:
        jax.distributed.initialize(address, count, index)

    import numpy as np
    import optax
    from batch_of import batch_of

    from rfn_jax import data, models, optim, training
    from rfn_jax.core import rng, sharding

    train = data.SOURCES.make('digits').train.take(np.arange(64))
    module = models.MODELS.make('resnet', num_classes=10, stage_sizes=(1,), widths=(4,))
    mesh = sharding.data_mesh()
    tx = optim.Optimizer(optim.rfn_sam(0.3), optim.momentum_sgd(0.1, momentum=0.9, weight_decay=5e-4))
    classifier = models.initialize(module, rng.key_for(0, 'test'), (8, 8, 1), num_classes=10)
    host = training.create(jax.device_get(classifier), tx)
    for group_size, shard in ((None, False), (None, True), (4, False), (16, False)):
        step = training.train_step(
            module, (0.5,), (0.3,), tx, lambda x, k: x, mesh, group_size=group_size, shard_state=shard
        )
        state = sharding.place(host, sharding.of_state(host, mesh, shard=shard))
        key = sharding.replicate_key(rng.key_for(0, 'augment'), mesh)
        for t in range(3):
            batch = sharding.shard_batch(batch_of(train, np.arange(32) + t), mesh)
            state, metrics = step(state, batch, key)
        norm = jax.jit(optax.tree.norm, out_shardings=sharding.replicated(mesh))(state.params)
        print(f'{group_size} {shard} {mesh.size} {float(norm):.7g} {float(metrics["loss"]):.7g}', flush=True)
