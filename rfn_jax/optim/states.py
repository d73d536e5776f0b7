"""Search for the states of individual transformations inside the state of an optimizer."""

from typing import TypeVar

import jax
import optax

State = TypeVar('State')


def find_states(opt_state: optax.OptState, state_type: type[State]) -> list[State]:
    """Returns all states of one type, in order, however deeply chains and wrappers nest them."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda leaf: isinstance(leaf, state_type))
    return [leaf for leaf in leaves if isinstance(leaf, state_type)]
