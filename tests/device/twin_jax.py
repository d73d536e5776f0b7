"""The JAX side of a paired benchmark: a worker that answers the commands that `twin_torch.py` describes.

On an accelerator ten steps start in a call, as in training. Images are not augmented, since PyTorch's side does not do so
either. Crafting with `mi+di+ti` has the options of torchattacks' TIFGSM, but draws for each example, not for the batch.
"""

import gc
import json
import os
import sys
import time
import traceback

import jax

from rfn_jax import bench, data
from rfn_jax.core import environment, sharding

EPS = 4 / 255
MINIMIZERS = {'sgd': {'name': 'sgd'}, 'sam': {'name': 'rfn_sam', 'rho': 0.4}}
ATTACKS = {
    'bim': {'name': 'bim'},
    'mi+di+ti': {'name': 'mi+di+ti', 'options': {'di': {'rate': 0.9, 'probability': 0.5}, 'ti': {'size': 15}}},
}


class Side:
    """What the commands do, with the case that is prepared."""

    def __init__(self):
        self._mesh = sharding.data_mesh(jax.devices()[:1])
        self._program: bench.Program | None = None

    def about(self) -> dict:
        """Versions, device, driver."""
        return environment.describe(self._mesh)

    def prepare(self, case: dict) -> dict:
        """Compiles and warms up a case."""
        begin = time.perf_counter()
        options = {name: case[name] for name in ('model', 'batch_size', 'precision')}
        if case['kind'] == 'training':
            self._program = bench.training_program(
                minimizer=MINIMIZERS[case['minimizer']],
                steps_per_call=1 if jax.default_backend() == 'cpu' else 10,
                augmentation=data.CropAndFlip(),
                mesh=self._mesh,
                **options,
            )
        else:
            attack = {**ATTACKS[case['attack']], 'eps': EPS, 'step_size': EPS / 10, 'steps': case['steps']}
            self._program = bench.attack_program(attack=attack, mesh=self._mesh, **options)
        bench.once(self._program, self._program.period)
        seconds = time.perf_counter() - begin
        return {'ready': True, 'prepare_s': seconds, 'peak_memory_bytes': self._program.memory_bytes}

    def round(self, seconds: float) -> dict:
        """Times whole calls."""
        calls = bench.calibrate(self._program, seconds)
        steps = calls * self._program.steps
        return {'seconds_per_step': bench.once(self._program, calls) / self._program.steps, 'steps': steps}

    def drop(self) -> dict:
        """Frees the case."""
        self._program = None
        jax.clear_caches()
        gc.collect()
        return {'dropped': True}


def main() -> None:
    """Answers commands until the input ends."""
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    side = Side()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(side, request.pop('command'))(**request)
        except Exception as error:
            traceback.print_exc()
            answer = {'error': ' '.join(f'{type(error).__name__}: {error}'.split())[:300]}
        print(json.dumps(answer), file=answers)


if __name__ == '__main__':
    main()
