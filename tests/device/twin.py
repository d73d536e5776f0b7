"""Times the same work in PyTorch and in JAX, alternately on one machine, so that whatever slows the machine slows both.

    python tests/device/twin.py --out FILE.json [--rounds 5] [--seconds 0.5] [--limit SECONDS] [--tiny]

Two workers, `twin_torch.py` and `twin_jax.py`, prepare one case after another (`CASES`) and time it in rounds, with the
order reversed in every second round. A ratio is the time of PyTorch divided by that of JAX in the same round.

`--out` is rewritten after every case, so that it holds all finished cases however the program ends. A failure in one worker
is recorded with the case; a worker that died is started again. `--limit` ends workers that do not answer in time; cases that
are not finished by then are listed, and the status is 0.
"""

import argparse
import contextlib
import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

HERE = pathlib.Path(__file__).parent
WORKERS = {name: [sys.executable, str(HERE / f'twin_{name}.py')] for name in ('torch', 'jax')}
ENVIRONMENT = {'jax': {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}}  # the workers share the device's memory
WIDTH = 120


def case_of(kind: str, model: str, batch_size: int, precision: str, work: str, *, compiled: bool = True) -> dict:
    names = ('kind', 'model', 'batch_size', 'precision', 'work', 'compile')
    return dict(zip(names, (kind, model, batch_size, precision, work, compiled), strict=True))


CASES = [  # the most valuable ones come first
    case_of('training', 'cifar_resnet18', 128, 'bfloat16', 'sgd'),
    case_of('training', 'cifar_resnet18', 128, 'bfloat16', 'rfn_sam'),
    case_of('attack', 'cifar_resnet18', 500, 'bfloat16', 'bim-50'),
    case_of('training', 'resnet50', 256, 'bfloat16', 'sgd'),
    case_of('training', 'resnet50', 256, 'bfloat16', 'rfn_sam'),
    case_of('attack', 'cifar_resnet18', 500, 'bfloat16', 'mi+di+ti-10'),
]
TINY = [
    case_of('training', 'cifar_resnet20', 8, 'float32', 'sgd', compiled=False),
    case_of('training', 'cifar_resnet20', 8, 'float32', 'rfn_sam', compiled=False),
    case_of('attack', 'cifar_resnet20', 2, 'float32', 'mi+di+ti-10', compiled=False),
]


class TimeUp(Exception):  # noqa: N818
    """The time limit has passed."""


class Worker:
    """A process that answers each line of JSON with one; it is started when needed, even after it died."""

    def __init__(self, command: list[str], environment: Mapping[str, str]):
        self._command = command
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def send(self, command: str, **values: object) -> None:
        """Sends a command, whose answer `receive` waits for."""
        if self._process is None:
            pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
            # Unbuffered, so that `select` sees every unread byte.
            self._process = subprocess.Popen(self._command, bufsize=0, env=self._environment, **pipes)
        with contextlib.suppress(BrokenPipeError):  # the worker died, which `receive` will report
            self._process.stdin.write((json.dumps({'command': command, **values}) + '\n').encode())

    def receive(self, deadline: float) -> dict:
        """The answer, which has the key `'error'` if the worker failed or died; raises `TimeUp` at the deadline."""
        if not select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeUp
        line = self._process.stdout.readline()
        return json.loads(line) if line else {'error': f'the worker ended with status {self.stop(patience=5.0)}'}

    def ask(self, deadline: float, command: str, **values: object) -> dict:
        self.send(command, **values)
        return self.receive(deadline)

    def stop(self, patience: float) -> int | None:
        """Ends the process, by force if it does not end by itself within `patience` seconds, and returns its status."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        process.kill()  # has no effect if it has already ended
        process.stdout.close()
        return process.wait()


def run(cases, workers, out: pathlib.Path, *, rounds: int, seconds: float, limit: float, argv=()) -> dict:
    """Times cases in all workers, writes the results to `out` after each, and returns the contents of that file.

    They are `about`, `command` (which is `argv`), `cases` and `left_out` (the cases that were left out at the limit).
    """
    deadline = time.monotonic() + limit
    sides = {name: Worker(command, ENVIRONMENT.get(name, {})) for name, command in workers.items()}
    results = {'about': {}, 'command': list(argv), 'cases': [], 'left_out': list(cases)}
    patience = 5.0
    try:
        results['about'] = ask_all(sides, deadline, 'about')
        while results['left_out'] and deadline - time.monotonic() > len(sides) * rounds * seconds:
            case = results['left_out'][0]
            print(f'{describe(case)}, batch {case["batch_size"]}, {case["precision"]}', flush=True)
            results['cases'].append(paired(case, sides, deadline, rounds, seconds))
            results['left_out'].pop(0)
            save(out, results)
            running = {name: side for name, side in sides.items() if side.running}
            for name, answer in ask_all(running, deadline, 'drop').items():
                if 'error' in answer:  # for example after a device fault, from which only a new process recovers
                    sides[name].stop(patience)
    except TimeUp:
        patience = 0.0
    finally:
        for side in sides.values():
            side.stop(patience)
    save(out, results)
    return results


def ask_all(sides: Mapping[str, Worker], deadline: float, command: str) -> dict:
    """The answers of all workers to a command that they may execute side by side."""
    for side in sides.values():
        side.send(command)
    return {name: side.receive(deadline) for name, side in sides.items()}


def paired(case: Mapping, sides: Mapping[str, Worker], deadline: float, rounds: int, seconds: float) -> dict:
    """The entry of the file for one case; raises `TimeUp`."""
    # One after another, since both choose algorithms by timing them.
    answers = {name: side.ask(deadline, 'prepare', case=case) for name, side in sides.items()}
    times = {name: [] for name, answer in answers.items() if 'error' not in answer}
    for number in range(rounds):
        for name in list(times) if number % 2 == 0 else list(reversed(times)):
            answer = sides[name].ask(deadline, 'round', seconds=seconds)
            if 'error' in answer:
                answers[name] = answer
                del times[name]
            else:
                times[name].append(answer['seconds_per_step'])
    entry = {'case': dict(case), **answers}
    for name, values in times.items():
        about = {key: value for key, value in answers[name].items() if key != 'ready'}
        per_step = {**spread(values), 'rounds': values}
        entry[name] = {**about, 'seconds_per_step': per_step, 'images_per_s': case['batch_size'] / per_step['median']}
    if 'torch' in times and 'jax' in times:
        entry['ratio'] = spread([torch / jax for torch, jax in zip(times['torch'], times['jax'], strict=True)])
    return entry


def spread(values: Sequence[float]) -> dict[str, float]:
    return {'median': statistics.median(values), 'min': min(values), 'max': max(values)}


def save(path: pathlib.Path, results: Mapping) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    temporary.write_text(json.dumps(results, indent=2) + '\n', encoding='utf-8')
    os.replace(temporary, path)


def describe(case: Mapping) -> str:
    return f'{case["model"]} {case["work"]}'


def table(results: Mapping) -> str:
    """The results as text: medians, ratios and errors."""
    rows = [('case', 'batch', 'precision', 'torch ms (img/s)', 'jax ms (img/s)', 'torch/jax', 'SAM/SGD')]
    remarks = ['torch/jax: above 1, JAX is faster; SAM/SGD: the cost of a step of rfn_sam in steps of sgd, torch / jax']
    for entry in results['cases']:
        case, cells, costs = entry['case'], [], []
        sgd = next((e for e in results['cases'] if e['case'] == {**case, 'work': 'sgd'}), {})
        for name in ('torch', 'jax'):
            side = entry.get(name, {})
            remarks += [f'{describe(case)}, {name}: {side[key]}' for key in ('error', 'note') if key in side]
            median, sgd_median = (e.get(name, {}).get('seconds_per_step', {}).get('median') for e in (entry, sgd))
            cells.append(f'{1e3 * median:.2f} ({side["images_per_s"]:.0f})' if median else '-')
            costs.append(f'{median / sgd_median:.2f}' if median and sgd_median else '-')
        ratio = entry.get('ratio')
        cells.append(f'{ratio["median"]:.2f} ({ratio["min"]:.2f}..{ratio["max"]:.2f})' if ratio else '-')
        cells.append(' / '.join(costs) if case['work'] == 'rfn_sam' else '')
        rows.append((describe(case), str(case['batch_size']), case['precision'], *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if results['left_out']:
        remarks.append(f'left out at the time limit: {"; ".join(map(describe, results["left_out"]))}')
    return '\n'.join(lines + [remark[: 2 * WIDTH] for remark in remarks])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', required=True, type=pathlib.Path)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=0.5, help='approximate duration of a round of one side')
    parser.add_argument('--limit', type=float, default=600.0, help='time limit in seconds for everything')
    parser.add_argument('--tiny', action='store_true', help='tiny cases that take a few seconds on a CPU')
    arguments = parser.parse_args()
    rounds, seconds = (2, 0.05) if arguments.tiny else (arguments.rounds, arguments.seconds)
    cases = TINY if arguments.tiny else CASES
    results = run(cases, WORKERS, arguments.out, rounds=rounds, seconds=seconds, limit=arguments.limit, argv=sys.argv)
    print(table(results))


if __name__ == '__main__':
    main()
