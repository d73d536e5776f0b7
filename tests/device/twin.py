"""Times the same work in PyTorch and in JAX, in turns on one machine, so that what slows the machine slows both.

    python tests/device/twin.py --out FILE.json [--rounds 5] [--seconds 0.5] [--limit SECONDS] [--tiny]

Two workers, `twin_torch.py` and `twin_jax.py`, prepare one case after the other (`CASES`) and time it in rounds, with the
order reversed in every second round. A ratio is PyTorch's seconds over those of JAX in the same round.

`--out` is written anew after every case, so that it holds what was finished, whatever ends the program. What fails in one
worker is recorded with the case; a worker that died is started again. `--limit` ends workers that do not answer in time;
cases that are not finished by then are listed, and the status is 0.
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
    """A case: a training step, or an attack on one batch."""
    case = {'kind': kind, 'model': model, 'batch_size': batch_size, 'precision': precision}
    return {**case, 'work': work, 'compile': compiled}


CASES = [  # what is worth most comes first
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
    """A process that answers each line of JSON by one; it is started when it is needed, also after it died.

    Args:
      command: Its command line.
      environment: Variables beside those of this process.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str]):
        self._command = command
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    def send(self, command: str, **values: object) -> None:
        """Sends a command, whose answer `receive` waits for."""
        if self._process is None:
            pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
            # Unbuffered, so that `select` sees every byte that was not read.
            self._process = subprocess.Popen(self._command, bufsize=0, env=self._environment, **pipes)
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
      argv: What is recorded as the command.

    Returns:
      What the file holds: `about`, `command`, `cases` and those `left_out`.
    """
    deadline = time.monotonic() + limit
    sides = {name: Worker(command, ENVIRONMENT.get(name, {})) for name, command in workers.items()}
    found = {'about': {}, 'command': list(argv), 'cases': [], 'left_out': list(cases)}
    patience = 5.0
    try:
        found['about'] = ask_all(sides, deadline, 'about')
        while found['left_out'] and deadline - time.monotonic() > len(sides) * rounds * seconds:
            case = found['left_out'][0]
            print(f'{describe(case)}, batch {case["batch_size"]}, {case["precision"]}', flush=True)
            found['cases'].append(paired(case, sides, deadline, rounds, seconds))
            found['left_out'].pop(0)
            save(out, found)
            running = {name: side for name, side in sides.items() if side.running}
            for name, answer in ask_all(running, deadline, 'drop').items():
                if 'error' in answer:  # as after a fault of the device, from which only a new process recovers
                    sides[name].stop(patience)
    except TimeUp:
        patience = 0.0
    finally:
        for side in sides.values():
            side.stop(patience)
    save(out, found)
    return found


def ask_all(sides: Mapping[str, Worker], deadline: float, command: str) -> dict:
    """Answers of all workers to a command that they may follow side by side."""
    for side in sides.values():
        side.send(command)
    return {name: side.receive(deadline) for name, side in sides.items()}


def paired(case: Mapping, sides: Mapping[str, Worker], deadline: float, rounds: int, seconds: float) -> dict:
    """What the file says of one case; raises `TimeUp`."""
    # One after the other, as both choose algorithms by timing them.
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
    found = {'case': dict(case), **answers}
    for name, values in times.items():
        about = {key: value for key, value in answers[name].items() if key != 'ready'}
        per_step = {**spread(values), 'rounds': values}
        found[name] = {**about, 'seconds_per_step': per_step, 'images_per_s': case['batch_size'] / per_step['median']}
    if 'torch' in times and 'jax' in times:
        found['ratio'] = spread([torch / jax for torch, jax in zip(times['torch'], times['jax'], strict=True)])
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest of some values."""
    return {'median': statistics.median(values), 'min': min(values), 'max': max(values)}


def save(path: os.PathLike | str, found: Mapping) -> None:
    """Writes a JSON file so that a reader finds the old one or the whole new one."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    temporary.write_text(json.dumps(found, indent=2) + '\n', encoding='utf-8')
    os.replace(temporary, path)


def describe(case: Mapping) -> str:
    """The network of a case and what is done with it."""
    return f'{case["model"]} {case["work"]}'


def table(found: Mapping) -> str:
    """What was found as text: medians, ratios and what went wrong."""
    rows = [('case', 'batch', 'precision', 'torch ms (img/s)', 'jax ms (img/s)', 'torch/jax', 'SAM/SGD')]
    remarks = ['torch/jax: above 1, JAX is faster; SAM/SGD: what a step of rfn_sam costs in those of sgd, torch / jax']
    for entry in found['cases']:
        case, cells, costs = entry['case'], [], []
        sgd = next((e for e in found['cases'] if e['case'] == {**case, 'work': 'sgd'}), {})
        for name in ('torch', 'jax'):
            side = entry.get(name, {})
            remarks += [f'{describe(case)}, {name}: {side[key]}' for key in ('error', 'note') if key in side]
            median, beside = (e.get(name, {}).get('seconds_per_step', {}).get('median') for e in (entry, sgd))
            cells.append(f'{1e3 * median:.2f} ({side["images_per_s"]:.0f})' if median else '-')
            costs.append(f'{median / beside:.2f}' if median and beside else '-')
        ratio = entry.get('ratio')
        cells.append(f'{ratio["median"]:.2f} ({ratio["min"]:.2f}..{ratio["max"]:.2f})' if ratio else '-')
        cells.append(' / '.join(costs) if case['work'] == 'rfn_sam' else '')
        rows.append((describe(case), str(case['batch_size']), case['precision'], *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if found['left_out']:
        remarks.append(f'left out at the time limit: {"; ".join(map(describe, found["left_out"]))}')
    return '\n'.join(lines + [remark[: 2 * WIDTH] for remark in remarks])


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', required=True)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=0.5, help='about how long a round of one side takes')
    parser.add_argument('--limit', type=float, default=600.0, help='seconds for all of it')
    parser.add_argument('--tiny', action='store_true', help='a few seconds of tiny cases on a CPU')
    arguments = parser.parse_args()
    rounds, seconds = (2, 0.05) if arguments.tiny else (arguments.rounds, arguments.seconds)
    cases = TINY if arguments.tiny else CASES
    found = run(cases, WORKERS, arguments.out, rounds=rounds, seconds=seconds, limit=arguments.limit, argv=sys.argv)
    print(table(found))


if __name__ == '__main__':
    main()
