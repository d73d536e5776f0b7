"""`rfn-jax list`: the names that a config can use, with their options."""

import functools
import importlib.resources
import inspect
import types
from collections.abc import Callable, Mapping, Sequence

from rfn_jax.core import errors, options

SUMMARY = 'lists the available models, attacks, minimizers, data sets and configs.'
KINDS = ('models', 'attacks', 'components', 'presets', 'minimizers', 'datasets', 'configs')


def main(arguments: Sequence[str]) -> int:
    """Prints the tables named in `arguments`, by default all.

    Raises:
      InputError: A table is unknown.
    """
    if any(argument in ('-h', '--help') for argument in arguments):
        print(f'rfn-jax list [{"|".join(KINDS)}]: {SUMMARY}')
        return 0
    for kind in arguments:
        if kind not in KINDS:
            raise errors.unknown_name('table', kind, KINDS)
    print('\n\n'.join('\n'.join([f'{kind}:', *_lines(kind)]) for kind in arguments or KINDS))
    return 0


def _lines(kind: str) -> list[str]:
    if kind == 'configs':
        files = (f for f in importlib.resources.files('rfn_jax.configs').iterdir() if f.name.endswith('.py'))
        return [f'  {f.name:<16} {_first_line(f.read_text())}' for f in sorted(files, key=str) if f.name[0] != '_']
    from rfn_jax import attacks, data, optim

    tables = {
        'attacks': attacks.ATTACKS,
        'components': attacks.COMPONENTS,
        'minimizers': optim.MINIMIZERS,
        'datasets': data.SOURCES,
    }
    if kind == 'models':
        return _models()
    if kind == 'presets':
        return [f'  {name:<16} {", ".join(table)}' for name, table in attacks.PRESETS.items()]
    shared = inspect.signature(attacks.compose).parameters if kind == 'attacks' else {}
    lines = [f'  {name:<16} {_options(tables[kind][name], shared)}' for name in tables[kind]]
    if kind == 'datasets':
        lines.append(
            '  rfn-jax prepare makes a data set for tfds from an image folder or from the archives of ImageNet'
        )
    return lines


def _models() -> list[str]:
    """The models that need no options, with their sizes, then the factories behind them, with their options."""
    from rfn_jax import models
    from rfn_jax.models import sizes

    lines = [f'  {"":<26} {"parameters":>11}  {"images":>9}  {"GFLOPs":>6}  {"torchvision"}']
    for name, size in sizes.table().items():
        images = f'{size.image_size} x {size.image_size}'
        lines.append(
            f'  {name:<26} {size.parameters:>11,}  {images:>9}  {size.gflops:>6.2f}  {size.torchvision or "-"}'
        )
    lines.append('  options of each family (a GFLOP is 10^9 multiply-adds of one image):')
    families = [name for name in models.MODELS if not isinstance(models.MODELS[name], functools.partial)]
    return lines + [f'  {name:<26} {_options(models.MODELS[name])}' for name in families]


def _first_line(source: str) -> str:
    return source.strip().strip('"').splitlines()[0].strip('"')


def _options(factory: Callable, shared: Mapping[str, inspect.Parameter] = types.MappingProxyType({})) -> str:
    """The options of a factory with their defaults; `shared` has the defaults of options that the factory only passes on."""
    listed = (
        shared[p.name] if p.default is ... else p
        for p in options.parameters(factory).values()
        if p.name not in ('num_classes', 'frame')
    )
    return ', '.join(
        p.name if p.default is p.empty else f'{p.name}={getattr(p.default, "__name__", p.default)}' for p in listed
    )
