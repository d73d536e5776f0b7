"""Times the same work in PyTorch and in JAX, in turns on one machine, so that what slows the machine slows both.

    python tests/device/twin.py --out FILE.json [--cases FILE.json] [--rounds 5] [--seconds 0.5] [--limit SECONDS] [--tiny]

Two workers, `twin_torch.py` and `twin_jax.py`, prepare one case after the other (`CASES`) and time it in rounds, with the
order reversed in every second round. A ratio is PyTorch's seconds over those of JAX in the same round.

`--out` is written anew after every case, so that it holds what was finished, whatever ends the program. What fails in one
worker is recorded with the case; a worker that dies is started again for the next case. `--limit` ends a worker that does not
answer in time; the cases that are not finished are then listed, and the status is 0.
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

from rfn_jax.core import files

HERE = pathlib.Path(__file__).parent
WORKERS = {name: [sys.executable, str(HERE / f'twin_{name}.py')] for name in ('torch', 'jax')}


def training(model: str, batch_size: int, precision: str, minimizer: str, *, compiled: bool = True) -> dict:
    """The case of a training step."""
    case = {'kind': 'training', 'model': model, 'batch_size': batch_size, 'precision': precision}
    return {**case, 'minimizer': minimizer, 'compile': compiled}


def attack(model: str, batch_size: int, precision: str, name: str, steps: int, *, compiled: bool = True) -> dict:
    """The case of an attack on one batch."""
    case = {'kind': 'attack', 'model': model, 'batch_size': batch_size, 'precision': precision}
    return {**case, 'attack': name, 'steps': steps, 'compile': compiled}


CASES = [  # what is worth most comes first
    training('cifar_resnet18', 128, 'bfloat16', 'sgd'),
    training('cifar_resnet18', 128, 'bfloat16', 'sam'),
    attack('cifar_resnet18', 500, 'bfloat16', 'bim', 50),
    training('resnet50', 256, 'bfloat16', 'sgd'),
    training('resnet50', 256, 'bfloat16', 'sam'),
    attack('cifar_resnet18', 500, 'bfloat16', 'mi+di+ti', 10),
    training('cifar_resnet18', 128, 'tf32', 'sam'),
]
TINY = [
    training('cifar_resnet20', 8, 'float32', 'sgd', compiled=False),
    training('cifar_resnet20', 8, 'float32', 'sam', compiled=False),
    attack('cifar_resnet20', 4, 'float32', 'bim', 2, compiled=False),
]


class TimeUp(Exception):  # noqa: N818
    """The time limit has passed."""


class Worker:
    """A process that answers each line of JSON by one; it is started when it is needed, also after it died.

    Args:
      command: Its command line.
    """

    def __init__(self, command: list[str]):
        self._command = command
        self._process: subprocess.Popen | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    def send(self, command: str, **values: object) -> None:
        """Sends a command, whose answer `receive` waits for."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,  # so that `select` sees every byte that was not read
                env={**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'},  # the workers share the device's memory
            )
        with contextlib.suppress(BrokenPipeError):  # it died, as the end of its answers will tell
            self._process.stdin.write((json.dumps({'command': command, **values}) + '\n').encode())

    def receive(self, deadline: float) -> dict:
        """The answer, with the key `'error'` if the worker could not do it or died.

        Args:
          deadline: Until when to wait for it, by `time.monotonic()`.

        Raises:
          TimeUp: There was none until then.
        """
        if not select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeUp
        line = self._process.stdout.readline()
        return json.loads(line) if line else {'error': f'the worker ended with status {self.stop(patience=5.0)}'}

    def ask(self, deadline: float, command: str, **values: object) -> dict:
        """Sends a command and returns its answer; see `receive`."""
        self.send(command, **values)
        return self.receive(deadline)

    def stop(self, patience: float) -> int | None:
        """Ends the process, at once if it does not end by itself in `patience` seconds, and returns its status."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        process.kill()  # does nothing to one that ended
        process.stdout.close()
        return process.wait()


def run(
    cases: Sequence[Mapping],
    workers: Mapping[str, list[str]],
    out: os.PathLike | str,
    *,
    rounds: int,
    seconds: float,
    limit: float,
    parallel_prepare: bool = False,
    argv: Sequence[str] = (),
) -> dict:
    """Times cases in all workers, and writes what was found after each.

    Args:
      cases: The cases, in their order.
      workers: Command line of each worker, by its name.
      out: The JSON file to write.
      rounds: Rounds of a case, at least 1.
      seconds: About how long a round of one worker takes.
      limit: Seconds for all of it.
      parallel_prepare: Whether the workers prepare a case at the same time, which is sooner done, but what they choose by
        timing (convolution algorithms, tilings) is then chosen on a busy machine.
      argv: What is recorded as the command.

    Returns:
      What the file holds: `about`, `command`, `cases` and those `left_out`.
    """
    deadline = time.monotonic() + limit
    sides = {name: Worker(command) for name, command in workers.items()}
    found = {'about': {}, 'command': list(argv), 'cases': [], 'left_out': list(cases)}
    patience = 5.0
    try:
        found['about'] = ask_all(sides, deadline, True, 'about')
        while found['left_out'] and deadline - time.monotonic() > len(sides) * rounds * seconds:
            case = found['left_out'][0]
            print(f'{describe(case)}, batch {case["batch_size"]}, {case["precision"]}', flush=True)
            found['cases'].append(paired(case, sides, deadline, rounds, seconds, parallel_prepare))
            found['left_out'].pop(0)
            files.write_json(out, found)
            running = {name: side for name, side in sides.items() if side.running}
            for name, answer in ask_all(running, deadline, True, 'drop').items():
                if 'error' in answer:  # as after a fault of the device, from which only a new process recovers
                    sides[name].stop(patience)
    except TimeUp:
        patience = 0.0
    finally:
        for side in sides.values():
            side.stop(patience)
    files.write_json(out, found)
    return found


def ask_all(sides: Mapping[str, Worker], deadline: float, together: bool, command: str, **values: object) -> dict:
    """Answers of all workers to a command, which they get at once or one after the other."""
    if not together:
        return {name: side.ask(deadline, command, **values) for name, side in sides.items()}
    for side in sides.values():
        side.send(command, **values)
    return {name: side.receive(deadline) for name, side in sides.items()}


def paired(
    case: Mapping, sides: Mapping[str, Worker], deadline: float, rounds: int, seconds: float, parallel_prepare: bool
) -> dict:
    """What the file says of one case; raises `TimeUp`."""
    answers = ask_all(sides, deadline, parallel_prepare, 'prepare', case=case)
    times = {name: [] for name, answer in answers.items() if 'error' not in answer}
    for number in range(rounds):
        for name in list(times) if number % 2 == 0 else list(reversed(times)):
            answer = sides[name].ask(deadline, 'round', seconds=seconds)
            if 'error' in answer:
                answers[name] = answer
                del times[name]
            else:
                times[name].append(answer['seconds_per_step'])
    found = {'case': dict(case), **answers}
    for name, values in times.items():
        about = {key: value for key, value in answers[name].items() if key != 'ready'}
        per_step = {**spread(values), 'rounds': values}
        images_per_s = case['batch_size'] / per_step['median']
        found[name] = {**about, 'seconds_per_step': per_step, 'images_per_s': images_per_s}
    if 'torch' in times and 'jax' in times:
        found['ratio'] = spread([torch / jax for torch, jax in zip(times['torch'], times['jax'], strict=True)])
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest of some values."""
    return {'median': statistics.median(values), 'min': min(values), 'max': max(values)}


def describe(case: Mapping) -> str:
    """The network of a case and what is done with it."""
    work = case['minimizer'] if case['kind'] == 'training' else f'{case["attack"]} x{case["steps"]}'
    return f'{case["model"]} {work}'


def table(found: Mapping) -> str:
    """What was found as text: medians, ratios and what went wrong."""
    rows = [('case', 'batch', 'precision', 'torch ms (img/s)', 'jax ms (img/s)', 'torch/jax', 'SAM/SGD')]
    remarks = ['torch/jax: above 1, JAX is faster; SAM/SGD: what a step of SAM costs in steps of SGD, torch / jax']
    for entry in found['cases']:
        case, cells, costs = entry['case'], [], []
        sgd = next((e for e in found['cases'] if e['case'] == {**case, 'minimizer': 'sgd'}), {})
        for name in ('torch', 'jax'):
            side = entry.get(name, {})
            remarks += [f'{describe(case)}, {name}: {side[key]}' for key in ('error', 'note') if key in side]
            median = side.get('seconds_per_step', {}).get('median')
            beside = sgd.get(name, {}).get('seconds_per_step', {}).get('median')
            cells.append(f'{1e3 * median:.2f} ({side["images_per_s"]:.0f})' if median else '-')
            costs.append(f'{median / beside:.2f}' if median and beside else '-')
        ratio = entry.get('ratio')
        cells.append(f'{ratio["median"]:.2f} ({ratio["min"]:.2f}..{ratio["max"]:.2f})' if ratio else '-')
        cells.append(' / '.join(costs) if case.get('minimizer') == 'sam' else '')
        rows.append((describe(case), str(case['batch_size']), case['precision'], *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if found['left_out']:
        remarks.append(f'left out at the time limit: {"; ".join(map(describe, found["left_out"]))}')
    return '\n'.join([*lines, *remarks])


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', required=True)
    parser.add_argument('--cases', default='default', help='a JSON file with a list of cases')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=0.5, help='about how long a round of one side takes')
    parser.add_argument('--limit', type=float, default=600.0, help='seconds for all of it')
    parser.add_argument('--parallel_prepare', action='store_true', help='both sides compile at the same time')
    parser.add_argument('--tiny', action='store_true', help='a few seconds of tiny cases on a CPU')
    arguments = parser.parse_args()
    cases = CASES if arguments.cases == 'default' else files.read_json(arguments.cases)
    if arguments.tiny:
        cases, arguments.rounds, arguments.seconds = TINY, 2, 0.05
    found = run(
        cases,
        WORKERS,
        arguments.out,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        limit=arguments.limit,
        parallel_prepare=arguments.parallel_prepare,
        argv=sys.argv,
    )
    print(table(found))


if __name__ == '__main__':
    main()
