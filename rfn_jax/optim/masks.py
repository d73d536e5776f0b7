"""Masks of the parameters to perturb, given to a minimizer as a name, a function of the parameters, or a pytree.

Parameters are recognized by their Flax names: normalization layers have a `scale`, and biases are called `bias`.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from rfn_jax.core import checks, errors

# A name, a function of the parameters, a pytree of booleans, or None for all parameters.
Mask = str | Callable[[optax.Params], Any] | Any | None


def no_biases(params: optax.Params) -> Any:
    """Selects all parameters except those called `bias`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _last_name(path) != 'bias', params)


def only_normalization(params: optax.Params) -> Any:
    """Selects only the scales and biases of normalization layers (batch, layer or group normalization).

    Source: Mueller et al., `Normalization Layers Are All That Sharpness-Aware Minimization Needs
    <https://arxiv.org/abs/2306.04226>`_, 2023 (SAM-ON).
    """
    names = [tuple(_key_name(key) for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    layers = {path[:-1] for path in names if path and path[-1] == 'scale'}
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _last_name(path) in ('scale', 'bias') and tuple(map(_key_name, path[:-1])) in layers, params
    )


def no_normalization(params: optax.Params) -> Any:
    """Selects all parameters except the scales and biases of normalization layers."""
    return jax.tree.map(lambda selected: not selected, only_normalization(params))


MASKS = {mask.__name__: mask for mask in (no_biases, only_normalization, no_normalization)}


def check_mask(mask: Any) -> None:
    """Checks the mask argument of a minimizer.

    Raises:
      ValueError: It is a string that is not in `MASKS`.
      TypeError: It is a single boolean, a JAX array, or a pytree with leaves that are not booleans.
    """
    if isinstance(mask, str):
        checks.one_of('mask', mask, MASKS)
        return
    if isinstance(mask, (bool, jax.Array)):
        raise errors.InputTypeError(
            f'mask must be a name ({", ".join(MASKS)}), a pytree of booleans or a function of params, got {mask!r}; inside '
            "optax.inject_hyperparams pass static_args='mask'"
        )
    leaves = [] if callable(mask) else jax.tree.leaves(mask)
    if not all(isinstance(leaf, bool) or str(getattr(leaf, 'dtype', None)) == 'bool' for leaf in leaves):
        raise errors.InputTypeError(
            f'mask must be a name ({", ".join(MASKS)}), a pytree of booleans, or a function that makes one from params, '
            f'got {mask!r}'
        )


def apply_mask(mask: Mask, params: optax.Params, tree: Any) -> Any:
    """Returns `tree`, which has the structure of `params`, with zeros wherever the mask is false.

    Raises:
      ValueError: The mask is a name or a function, and selects none of the parameters.
    """
    if mask is None:
        return tree
    function = MASKS[mask] if isinstance(mask, str) else mask
    if callable(function):
        mask = function(params)
        if not any(leaf is not False for leaf in jax.tree.leaves(mask)):
            raise errors.InputError(f'mask {getattr(function, "__name__", function)} selects none of the parameters')
    return jax.tree.map(
        lambda keep, branch: jax.tree.map(lambda x: jax.numpy.where(keep, x, jax.numpy.zeros_like(x)), branch),
        mask,
        tree,
    )


def _last_name(path: tuple[object, ...]) -> str:
    return _key_name(path[-1]) if path else ''


def _key_name(key: Any) -> str:
    return str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key))))
