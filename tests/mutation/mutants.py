"""Which mutants of the minimizers, the attacks and the transfer measurements the tests kill; cosmic-ray makes the mutants.

    pip install cosmic-ray
    python tests/mutation/mutants.py sample --count 200 --out killed.json     # draws mutants until the tests killed so many
    python tests/mutation/mutants.py check killed.json                        # whether the tests kill each of them (still)

Tests may be rewritten as long as they kill what they killed before. A mutant is made in a temporary clone of the last
commit. The tests of its subpackage run until the first fails, those named after its module first. `sample` gives up on a
mutant after `--seconds`, so mutants that only a distant test kills are left out; `check` runs all tests of the subpackage.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

from cosmic_ray import ast, plugins
from cosmic_ray.mutating import mutate_code

ROOT = pathlib.Path(__file__).parents[2]
ROOMS = ('optim', 'attacks', 'transfer')
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
      sha256: Hash of the module before the change.
      change: The changed lines, for people.
    """

    module: str
    operator: str
    occurrence: int
    sha256: str
    change: str


def main() -> int:
    """Runs the command line; the status is 1 if a mutant of `check` survives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    sample_parser = commands.add_parser('sample')
    sample_parser.add_argument('--count', type=int, default=200)
    sample_parser.add_argument('--seconds', type=float, default=120.0)
    sample_parser.add_argument('--seed', type=int, default=0)
    sample_parser.add_argument('--out', type=pathlib.Path, required=True)
    commands.add_parser('check').add_argument('killed', type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = pathlib.Path(folder) / 'clone'
        subprocess.run(['git', 'clone', '-q', ROOT, clone], check=True)
        if arguments.command == 'sample':
            sample(clone, arguments.count, arguments.seconds, arguments.seed, arguments.out)
            return 0
        return check(clone, arguments.killed)


def sample(clone: pathlib.Path, count: int, seconds: float, seed: int, out: pathlib.Path) -> None:
    """Adds mutants that the tests kill to `out` until there are `count`; what is in it already stays."""
    killed = [Mutant(**row) for row in json.loads(out.read_text())] if out.exists() else []
    mutants = all_mutants(clone)
    random.Random(seed).shuffle(mutants)
    start = mutants.index(killed[-1]) + 1 if killed and killed[-1] in mutants else 0
    for number, mutant in enumerate(mutants[start:], start=start + 1):
        if len(killed) >= count:
            break
        outcome = run_tests(clone, mutant, seconds)
        print(f'{number}: {outcome}: {mutant.module} {mutant.operator}: {mutant.change}', flush=True)
        if outcome == 'killed':
            killed.append(mutant)
            out.write_text(json.dumps([dataclasses.asdict(m) for m in killed], indent=1) + '\n')


def check(clone: pathlib.Path, path: pathlib.Path) -> int:
    """Runs the tests on each mutant of a file, and prints those that survive."""
    status = 0
    for mutant in (Mutant(**row) for row in json.loads(path.read_text())):
        outcome = run_tests(clone, mutant, None)
        print(f'{outcome}: {mutant.module} {mutant.operator}: {mutant.change}', flush=True)
        status |= outcome == 'survived'
    return status


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
                    if changed is not None and changed != code:
                        module = str(path.relative_to(clone))
                        sha256 = hashlib.sha256(code.encode()).hexdigest()
                        found.append(Mutant(module, name, occurrence, sha256, describe(code, changed)))
    return found


def describe(code: str, changed: str) -> str:
    """The first line that differs, before and after."""
    pairs = zip(code.splitlines(), changed.splitlines(), strict=False)
    return next((f'{old.strip()} -> {new.strip()}' for old, new in pairs if old != new), 'a line is gone')


def run_tests(clone: pathlib.Path, mutant: Mutant, seconds: float | None) -> str:
    """Runs the tests on a mutant: `'killed'`, `'survived'`, `'undecided'` after `seconds`, or `'changed'`.

    The last is a module that is not the one that the mutant was made from.
    """
    path = clone / mutant.module
    code = path.read_text(encoding='utf-8')
    if hashlib.sha256(code.encode()).hexdigest() != mutant.sha256:
        return 'changed'
    operator = plugins.get_operator(f'core/{mutant.operator}')()
    path.write_text(mutate_code(code, operator, mutant.occurrence), encoding='utf-8')
    folder = clone / 'tests' / pathlib.Path(mutant.module).parts[1]
    named = sorted(folder.rglob(f'test_*{path.stem}*.py'))
    marker = '' if seconds is None else 'not slow'
    command = [
        sys.executable,
        '-m',
        'pytest',
        '-x',
        '-q',
        '-n',
        '0',
        '-p',
        'no:cacheprovider',
        '-m',
        marker,
        *named,
        folder,
    ]
    environment = {
        **os.environ,
        'PYTHONPATH': str(clone),
        'PYTHONDONTWRITEBYTECODE': '1',
        'JAX_COMPILATION_CACHE_DIR': str(clone.parent / 'compiled'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    }
    try:
        run = subprocess.run(command, cwd=clone, env=environment, timeout=seconds, capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        return 'undecided'
    finally:
        path.write_text(code, encoding='utf-8')
    return 'survived' if run.returncode == 0 else 'killed'


if __name__ == '__main__':
    sys.exit(main())
