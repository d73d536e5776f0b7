"""The states of single transformations in the state of an optimizer."""

from typing import TypeVar

import jax
import optax

State = TypeVar('State')


def of_kind(opt_state: optax.OptState, kind: type[State]) -> list[State]:
    """The states of one kind, at any depth of a chain or of wrappers, in their order."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda leaf: isinstance(leaf, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]
