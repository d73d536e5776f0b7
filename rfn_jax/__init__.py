"""Transferable adversarial examples from surrogates trained in large flat neighborhoods (RFN / l-SAM).

Rooms load when they are first used, so that importing the package costs what its minimizers need: jax and optax.
"""

import importlib
from typing import TYPE_CHECKING

from rfn_jax.optim import rfn_sam

if TYPE_CHECKING:
    from rfn_jax import (
        attacks,
        bench,
        core,
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
    from rfn_jax.storage import load

__version__ = '0.1.0'
__all__ = [
    'Classifier', 'attacks', 'bench', 'core', 'data', 'experiment', 'load', 'models', 'optim', 'report', 'rfn_sam',
    'storage', 'training', 'transfer',
]  # fmt: skip

_ATTRIBUTES = {'Classifier': 'models', 'load': 'storage'}


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    if name in _ATTRIBUTES:
        return getattr(importlib.import_module(f'{__name__}.{_ATTRIBUTES[name]}'), name)
    return importlib.import_module(f'{__name__}.{name}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
