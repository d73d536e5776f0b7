import ast
import pathlib
import re

import pytest

import rfn_jax

ROOT = pathlib.Path(rfn_jax.__file__).parent
README = (ROOT.parent / 'README.md').read_text(encoding='utf-8')
LEVELS = {room: int(level) for room, level in re.findall(r'^\| `rfn_jax/(\w+)` \| (\d) \|', README, re.MULTILINE)}
FILES = sorted(path for path in ROOT.rglob('*.py') if path.parent != ROOT)


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix('.py')


def imported_rooms(source, package):
    """Yields the rooms of rfn_jax that the source of a module in `package` imports anywhere, even inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split('.')[: len(package.split('.')) + 1 - node.level] if node.level else []
            module = '.'.join([*above, *([node.module] if node.module else [])])
            names = [f'{module}.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split('.')
            if first == 'rfn_jax':
                yield rest[0] if rest else 'rfn_jax'


def forbidden(room, imported):
    return imported != room and not LEVELS.get(imported, 99) < LEVELS[room]


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_below_it(path):
    room = room_of(path)
    assert room in LEVELS, f'{room} has no level: add it to README.md and here'
    package = '.'.join(['rfn_jax', *path.relative_to(ROOT).parts[:-1]])
    wrong = {name for name in imported_rooms(path.read_text(encoding='utf-8'), package) if forbidden(room, name)}
    assert not wrong, f'{path.relative_to(ROOT)} (level {LEVELS[room]}) imports {sorted(wrong)}'


def test_the_walk_sees_every_form_of_import():
    source = (
        'import rfn_jax\n'
        'import rfn_jax.optim.sam as s\n'
        'from rfn_jax import attacks, data\n'
        'from rfn_jax.core import io\n'
        'from . import state\n'
        'from .. import transfer\n'
        'from ..report import page\n'
        'import rfn_jaxx.other, jax\n'
        'def f():\n'
        '    from rfn_jax.cli.main import main\n'
    )
    assert list(imported_rooms(source, 'rfn_jax.training')) == [
        'rfn_jax', 'optim', 'attacks', 'data', 'core', 'training', 'transfer', 'report', 'cli'
    ]  # fmt: skip


def test_the_rule_forbids_upwards_sideways_and_the_root():
    for room, imported in (('training', 'attacks'), ('optim', 'models'), ('transfer', 'report'), ('cli', 'rfn_jax')):
        assert forbidden(room, imported)
    assert not forbidden('training', 'models')


def test_the_readme_lists_the_rooms_with_their_levels():
    assert {room_of(path) for path in FILES} == LEVELS.keys()
    assert list(LEVELS.values()) == sorted(LEVELS.values())
    assert (LEVELS['core'], LEVELS['cli']) == (0, 7)
