"""The JAX side of a paired benchmark: a worker with the commands and cases of `twin_torch.py`, built on `rfn_jax.bench`.

`peak_memory_bytes` is the memory of the compiled program as XLA reports it; the key `compile` of a case is ignored.
"""

import gc
import json
import os
import sys
import time
import traceback

import jax

from rfn_jax import bench
from rfn_jax.core import environment, sharding

# As in torchattacks, except that torchattacks draws once per batch, and this attack once per example.
DI = {'di': {'rate': 0.9, 'probability': 0.5}}


class Side:
    def __init__(self):
        self._program: bench.Program | None = None
        self._pace = 0.0

    def about(self) -> dict:
        return environment.describe(sharding.data_mesh(jax.devices()[:1]))

    def prepare(self, case: dict) -> dict:
        begin = time.perf_counter()
        self.drop()
        one = jax.devices()[0]
        options = {name: case[name] for name in ('batch_size', 'precision')}
        options['mesh'] = sharding.data_mesh([one])
        if case['kind'] == 'training':
            options['steps_per_call'] = 1 if one.platform == 'cpu' else 10
            self._program = bench.training_program(case['model'], bench.MINIMIZERS[case['work']], **options)
        else:
            attack = bench.ATTACKS[case['work']]
            if 'di' in attack['name'].split('+'):
                attack = {**attack, 'options': DI}
            self._program = bench.attack_program(case['model'], attack, **options)
        self._pace = bench.time_calls(self._program, bench.calibrate(self._program, 0.3))
        memory = self._program.memory_bytes
        return {'ready': True, 'prepare_s': time.perf_counter() - begin, 'peak_memory_bytes': memory}

    def round(self, seconds: float) -> dict:
        program = self._program  # timed in whole calls, in multiples of the minimizer's period
        calls = program.period * max(1, round(seconds / (self._pace * program.period)))
        return {'seconds_per_step': bench.time_calls(program, calls) / program.steps, 'steps': calls * program.steps}

    def drop(self) -> dict:
        self._program = None
        jax.clear_caches()
        gc.collect()
        return {'dropped': True}


def main() -> None:
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)  # output of libraries is not an answer
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
