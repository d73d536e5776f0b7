"""Transferable adversarial examples from surrogates trained in large flat neighborhoods (RFN / l-SAM).

Subpackages load when they are first used: importing the package costs nothing, and `rfn-jax --help` does not wait for jax.
"""

import importlib
from typing import TYPE_CHECKING

from rfn_jax.core.version import __version__ as __version__

if TYPE_CHECKING:
    from rfn_jax import (
        attacks,
        bench,
        data,
        experiment,
        models,
        optim,
        report,
        storage,
        training,
        transfer,
    )
    from rfn_jax.models import Classifier
    from rfn_jax.optim import rfn_sam
    from rfn_jax.storage import load

__all__ = [
    'Classifier', 'attacks', 'bench', 'data', 'experiment', 'load', 'models', 'optim', 'report', 'rfn_sam',
    'storage', 'training', 'transfer',
]  # fmt: skip

_ATTRIBUTES = {'Classifier': 'models', 'load': 'storage', 'rfn_sam': 'optim'}


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    if name in _ATTRIBUTES:
        return getattr(importlib.import_module(f'{__name__}.{_ATTRIBUTES[name]}'), name)
    return importlib.import_module(f'{__name__}.{name}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
