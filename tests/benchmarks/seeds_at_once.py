"""Seconds to train several seeds of the digits' surrogate together and one after another, and how far their weights differ.

    python tests/benchmarks/seeds_at_once.py --seeds=4 --epochs=8 --rounds=3

Both ways train with RFN, as `configs/digits.py` does, through `training.fit` with its checkpoints. After a first round,
which compiles, they take turns; the medians and their ratio are printed. `--mlp` takes an MLP (256, 256) instead.

Rounding differs between the two ways, and training amplifies it. For comparison, a third way changes the initial weights by
their last bit: the last lines are the largest differences between the weights and those of the separate runs, by epoch.
"""

import argparse
import dataclasses
import os
import pathlib
import platform
import statistics
import tempfile
import time

import jax
import numpy as np

from rfn_jax import data, models, training
from rfn_jax.configs import digits
from rfn_jax.core import console, rng, sharding
from rfn_jax.experiment import pinning, reading

QUIET = console.Console(quiet=True)


def main() -> None:
    """Times both ways in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (('seeds', 4), ('epochs', 8), ('rounds', 3)):
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--mlp', action='store_true')
    arguments = parser.parse_args()
    bench = Bench(arguments.seeds, arguments.epochs, mlp=arguments.mlp)
    seconds: dict[str, list[float]] = {'separate': [], 'together': []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds + 1):
            for way, found in seconds.items():
                start = time.perf_counter()
                bench.fit(pathlib.Path(folder, str(number), way), together=way == 'together')
                found += [time.perf_counter() - start] * bool(number)
        bench.nudge()
        bench.fit(pathlib.Path(folder, '0', 'last bit'), together=False)
        device = jax.devices()[0]
        load = ', '.join(f'{value:.1f}' for value in os.getloadavg())
        print(
            f'{device.device_kind} of {platform.node()}, {len(jax.devices())} devices, {os.cpu_count()} cores, load {load}'
        )
        for way, found in seconds.items():
            print(f'{way}: median {statistics.median(found):.2f} s of {[round(value, 2) for value in found]}')
        ratio = statistics.median(seconds['separate']) / statistics.median(seconds['together'])
        print(f'separate / together: {ratio:.2f}')
        for epoch in sorted({1, 2, arguments.epochs}):
            separate, *others = (
                bench.weights(pathlib.Path(folder, '0', way), epoch) for way in ('separate', 'together', 'last bit')
            )
            found = [max(np.max(np.abs(a - b)) for a, b in zip(separate, other, strict=True)) for other in others]
            print(f'epoch {epoch}: largest difference {found[0]:.1e} together, {found[1]:.1e} with another last bit')


class Bench:
    """The networks, their data, and the program."""

    def __init__(self, seeds: int, epochs: int, *, mlp: bool):
        config = digits.get_config()
        if mlp:
            config.surrogates = {'mlp': {'name': 'mlp', 'widths': (256, 256)}}
        plan = reading.read(pinning.pinned(config.to_dict()))
        network = next(n for n in plan.trained_surrogates() if n.training == 'rfn')
        recipe = dataclasses.replace(network.recipe, epochs=epochs, decay_epochs=())
        splits, mesh = data.SOURCES.make('digits'), sharding.data_mesh()
        info = splits.info
        shared = {'num_classes': info.num_classes, 'mean': info.mean, 'std': info.std}
        module = network.module(info.num_classes)
        self.initial = [
            models.initialize(module, rng.key_for(0, 'benchmark', seed), info.image_shape, **shared)
            for seed in range(seeds)
        ]
        self.loader = data.loader(splits.train, info, batch_size=recipe.batch_size, seed=0, mesh=mesh)
        self.validation = splits.validation
        steps = self.loader.steps_per_epoch
        self.program = training.program(self.initial[0], recipe, steps_per_epoch=steps, mesh=mesh)

    def fit(self, directory: pathlib.Path, *, together: bool) -> None:
        """Trains all seeds, at the same time or one after another."""
        runs = [
            training.Run(classifier, data.with_seed(self.loader, seed), directory / str(seed), f'seed {seed}')
            for seed, classifier in enumerate(self.initial)
        ]
        for group in [runs] if together else [[run] for run in runs]:
            training.fit(group, self.validation, self.program, keep_all=True, batch_size=200, console=QUIET)

    def nudge(self) -> None:
        """Changes the last bit of every initial parameter that is not zero."""
        self.initial = [
            classifier.replace(
                variables={
                    **classifier.variables,
                    'params': jax.tree.map(
                        lambda w: np.where(w == 0, w, np.nextafter(w, np.float32(np.inf))),
                        classifier.variables['params'],
                    ),
                }
            )
            for classifier in self.initial
        ]

    def weights(self, directory: pathlib.Path, epoch: int) -> list[np.ndarray]:
        """The parameters of all seeds after an epoch."""
        stores = [training.CheckpointStore(directory / str(seed) / 'checkpoints') for seed in range(len(self.initial))]
        return [
            np.asarray(leaf)
            for store in stores
            for leaf in jax.tree.leaves(store.restore_classifier(epoch, self.initial[0]).variables['params'])
        ]


if __name__ == '__main__':
    main()
