"""Which mutants of the minimizers, the attacks and the transfer measurements the tests kill; cosmic-ray makes the mutants.

    pip install cosmic-ray pytest-cov
    python tests/mutation/mutants.py sample --count 200 --out killed.json     # draws mutants until the tests killed so many
    python tests/mutation/mutants.py check killed.json                        # whether the tests kill each of them (still)

Tests may be rewritten as long as they kill what they killed before. A mutant is made in a temporary clone of the last
commit. One run of all tests of a subpackage notes which tests reach which lines. On a mutant, the quickest tests that reach
its line run until one fails. Where none does, `sample` draws another mutant, and `check` runs all tests of the subpackage,
the slow ones too. A compilation cache shared by all mutants makes this about three times as fast.
"""

import argparse
import ast as python_ast
import bisect
import collections
import dataclasses
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import coverage
from cosmic_ray import ast, plugins
from cosmic_ray.mutating import mutate_code

ROOT = pathlib.Path(__file__).parents[2]
ROOMS = ('optim', 'attacks', 'transfer')
NO_TESTS = 5  # the exit status of pytest
QUICKEST = 12  # tests that run on each mutant at first
OPERATORS = (
    'NumberReplacer', 'AddNot', 'RemoveDecorator', 'ReplaceTrueWithFalse', 'ReplaceFalseWithTrue', 'ReplaceOrWithAnd',
    'ReplaceAndWithOr', 'ZeroIterationForLoop', 'ReplaceUnaryOperator_USub_UAdd', 'ReplaceBinaryOperator_Mul_Div',
    'ReplaceBinaryOperator_Mul_Add', 'ReplaceBinaryOperator_Add_Sub', 'ReplaceBinaryOperator_Sub_Add',
    'ReplaceBinaryOperator_Div_Mul', 'ReplaceComparisonOperator_Lt_LtE', 'ReplaceComparisonOperator_LtE_Lt',
    'ReplaceComparisonOperator_Gt_GtE', 'ReplaceComparisonOperator_GtE_Gt', 'ReplaceComparisonOperator_Eq_NotEq',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
      module: Path from the root of the repository.
      operator: Name of cosmic-ray's operator.
      occurrence: Which of the places that the operator can change.
      line: The number of the first line that changes.
      change: That line before and after, by which `check` finds the mutant again in a module that has changed elsewhere.
    """

    module: str
    operator: str
    occurrence: int
    line: int
    change: str

    @property
    def room(self) -> str:
        """The subpackage that the module belongs to."""
        return pathlib.Path(self.module).parts[1]


def main() -> int:
    """Runs the command line; the status is 1 if a mutant of `check` survives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    sample_parser = commands.add_parser('sample')
    sample_parser.add_argument('--count', type=int, default=200)
    sample_parser.add_argument('--seed', type=int, default=0)
    sample_parser.add_argument('--out', type=pathlib.Path, required=True)
    commands.add_parser('check').add_argument('killed', type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = pathlib.Path(folder) / 'clone'
        subprocess.run(['git', 'clone', '-q', ROOT, clone], check=True)
        if arguments.command == 'sample':
            sample(clone, arguments.count, arguments.seed, arguments.out)
            return 0
        return check(clone, arguments.killed)


def sample(clone: pathlib.Path, count: int, seed: int, out: pathlib.Path) -> None:
    """Adds mutants that the tests kill to `out` until there are `count`; what is in it already stays."""
    killed = [Mutant(**row) for row in json.loads(out.read_text())] if out.exists() else []
    reaching = {room: tests_by_line(clone, room) for room in ROOMS}
    mutants = all_mutants(clone)
    random.Random(seed).shuffle(mutants)
    start = mutants.index(killed[-1]) + 1 if killed and killed[-1] in mutants else 0
    for number, mutant in enumerate(mutants[start:], start=start + 1):
        if len(killed) >= count:
            break
        outcome = run_tests(clone, mutant, quickest(reaching, mutant))
        print(f'{number}: {outcome}: {mutant.module}:{mutant.line} {mutant.operator}: {mutant.change}', flush=True)
        if outcome == 'killed':
            killed.append(mutant)
            out.write_text(json.dumps([dataclasses.asdict(m) for m in killed], indent=1) + '\n')


def check(clone: pathlib.Path, path: pathlib.Path) -> int:
    """Runs the tests on each mutant of a file, prints the outcomes and says `gone` where the line is no longer there."""
    status = 0
    reaching = {room: tests_by_line(clone, room) for room in ROOMS}
    current = collections.defaultdict(list)
    for mutant in all_mutants(clone):
        current[mutant.module, mutant.operator, mutant.change].append(mutant)
    for before in (Mutant(**row) for row in json.loads(path.read_text())):
        same = current[before.module, before.operator, before.change]
        if not same:
            print(f'gone: {before.module}:{before.line} {before.operator}: {before.change}', flush=True)
            continue
        mutant = min(same, key=lambda other: abs(other.line - before.line))  # of equal lines, the nearest
        outcome = run_tests(clone, mutant, quickest(reaching, mutant))
        if outcome == 'survived':
            outcome = run_tests(clone, mutant, [f'tests/{mutant.room}'])
        print(f'{outcome}: {mutant.module}:{mutant.line} {mutant.operator}: {mutant.change}', flush=True)
        status |= outcome == 'survived'
    return status


def tests_by_line(clone: pathlib.Path, room: str) -> dict[str, dict[int, list[str]]]:
    """For each module of a subpackage and each line, the tests that reach it, the quickest ones first."""
    data_file, times_file = clone.parent / f'{room}.coverage', clone.parent / f'{room}.json'
    flags = [
        f'--cov=rfn_jax.{room}',
        '--cov-context=test',
        '--cov-report=',
        '-p',
        'mutation.durations',
        f'tests/{room}',
    ]
    more = {'COVERAGE_FILE': str(data_file), 'DURATIONS_FILE': str(times_file)}
    pytest(clone, ['-m', 'not slow', *flags], **more)
    times = json.loads(times_file.read_text())
    measured = coverage.CoverageData(str(data_file))
    measured.read()
    if len(measured.measured_contexts()) < 2:
        raise RuntimeError(f'no test of tests/{room} was recorded')
    found = {}
    for path in measured.measured_files():
        contexts = measured.contexts_by_lineno(path)
        found[str(pathlib.Path(path).relative_to(clone))] = {
            line: sorted({c.rsplit('|', 1)[0] for c in names if c} & times.keys(), key=times.get)
            for line, names in contexts.items()
        }
    return found


def quickest(reaching: dict[str, dict[str, dict[int, list[str]]]], mutant: Mutant) -> list[str]:
    """The quickest tests that reach the statement of a mutant, which starts at its line or before."""
    lines = reaching[mutant.room].get(mutant.module, {})
    numbers = sorted(lines)
    position = bisect.bisect_right(numbers, mutant.line)
    return lines[numbers[position - 1]][:QUICKEST] if position else []


def all_mutants(clone: pathlib.Path) -> list[Mutant]:
    """All mutants of the rooms, in a fixed order."""
    found = []
    for room in ROOMS:
        for path in sorted((clone / 'rfn_jax' / room).rglob('*.py')):
            code = path.read_text(encoding='utf-8')
            nodes = list(ast.ast_nodes(ast.get_ast(code)))
            for name in OPERATORS:
                operator = plugins.get_operator(f'core/{name}')()
                places = sum(len(list(operator.mutation_positions(node))) for node in nodes)
                for occurrence in range(places):
                    changed = mutate_code(code, operator, occurrence)
                    if changed is not None and changed != code and is_python(changed):
                        module = str(path.relative_to(clone))
                        found.append(Mutant(module, name, occurrence, *first_change(code, changed)))
    return found


def is_python(code: str) -> bool:
    """Whether code can be parsed; some operators mistake the `*` of a signature for a product."""
    try:
        python_ast.parse(code)
    except SyntaxError:
        return False
    return True


def first_change(code: str, changed: str) -> tuple[int, str]:
    """The number of the first line that differs, and the line before and after."""
    pairs = enumerate(zip(code.splitlines(), changed.splitlines(), strict=False), start=1)
    return next(((number, f'{old.strip()} -> {new.strip()}') for number, (old, new) in pairs if old != new), (1, ''))


def run_tests(clone: pathlib.Path, mutant: Mutant, tests: list[str]) -> str:
    """Runs tests on a mutant: `'killed'` or `'survived'`."""
    path = clone / mutant.module
    code = path.read_text(encoding='utf-8')
    if not tests:
        return 'survived'
    operator = plugins.get_operator(f'core/{mutant.operator}')()
    path.write_text(mutate_code(code, operator, mutant.occurrence), encoding='utf-8')
    try:
        return 'survived' if pytest(clone, ['-x', '-m', '', *tests]) == 0 else 'killed'
    finally:
        path.write_text(code, encoding='utf-8')


def pytest(clone: pathlib.Path, arguments: list[str], **more: str) -> int:
    """The exit status of pytest in the clone, in one process."""
    environment = {
        **os.environ,
        'PYTHONPATH': f'{clone}:{clone / "tests"}',
        'PYTHONDONTWRITEBYTECODE': '1',
        'JAX_COMPILATION_CACHE_DIR': str(clone.parent / 'compiled'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
        **more,
    }
    # Without xdist, as coverage records no contexts where the settings of the project name a way to distribute tests.
    flags = ['-q', '-p', 'no:xdist', '-p', 'no:cacheprovider', '-o', 'addopts=']
    command = [sys.executable, '-m', 'pytest', *flags, *arguments]
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == NO_TESTS:
        raise RuntimeError(f'{" ".join(command)} ran no test: {done.stdout}{done.stderr}')
    return done.returncode


if __name__ == '__main__':
    sys.exit(main())
