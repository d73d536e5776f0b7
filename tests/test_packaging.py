"""What a newcomer's first lines find: the package, from wherever they run, without waiting for what they do not use."""

import pathlib
import subprocess
import sys

import rfn_jax
from rfn_jax.core.version import __version__

ROOT = pathlib.Path(rfn_jax.__file__).parents[1]


def python(*arguments, cwd=None):
    command = [sys.executable, '-W', 'error', *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert run.stderr == ''
    return run.stdout


def test_beside_a_clone_of_that_name_the_package_is_imported_and_not_the_clone(tmp_path):
    (tmp_path / 'rfn_jax').symlink_to(ROOT)
    script = 'import rfn_jax, rfn_jax.configs.digits; print(rfn_jax.__version__, callable(rfn_jax.load))'
    assert python('-c', script, cwd=tmp_path) == f'{__version__} True\n'


def test_help_and_version_load_no_jax():
    script = (
        'import sys; from rfn_jax.cli.main import main; main(["--version"]); main(["--help"]); '
        'assert "jax" not in sys.modules'
    )
    assert python('-c', script).startswith(f'rfn-jax {__version__}\nusage: rfn-jax')


def test_the_package_runs_as_a_module():
    assert python('-m', 'rfn_jax', '--version') == f'rfn-jax {__version__}\n'


def test_importing_rooms_is_light_and_starts_no_backend():
    script = (
        'import sys, rfn_jax\n'
        'assert "jax" not in sys.modules\n'
        'from jax._src import xla_bridge\n'
        'from rfn_jax import attacks, data, models, optim\n'
        'heavy = {"tensorflow", "torch", "matplotlib", "pandas", "tensorflow_datasets", "sklearn", "grain", "orbax", "PIL"}\n'
        'print(sorted(heavy & sys.modules.keys()), xla_bridge.backends_are_initialized())\n'
        'import jax\n'
        'jax.devices()\n'
        'print(xla_bridge.backends_are_initialized())\n'
    )
    assert python('-c', script) == '[] False\nTrue\n'


def test_every_public_name_of_the_root_and_of_its_rooms_is_there_after_importing_the_root():
    script = (
        'import rfn_jax\n'
        'for name in rfn_jax.__all__:\n'
        '    part = getattr(rfn_jax, name)\n'
        '    for inner in getattr(part, "__all__", ()):\n'
        '        getattr(part, inner)\n'
        'import jax\n'
        'print(rfn_jax.attacks.example_keys(jax.random.key(0), [1, 2]).shape, "data" in dir(rfn_jax))\n'
    )
    assert python('-c', script) == '(2,) True\n'
