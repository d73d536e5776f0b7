"""A step of several networks in one program: the step of one, mapped over them.

Axes: `S` networks that are trained together.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Trees = tuple[Any, ...]


def several(step: Callable[..., tuple[Any, Any]], place: Callable[[Any], Any]) -> Callable[..., tuple[Trees, Trees]]:
    """Returns the step of S networks, as `jax.vmap` of the step of one.

    The networks are stacked inside the program: outside, each has arrays of its own, placed and saved like those of a network
    that is trained alone, and no axis S exists. The copies that this takes are made once for each call.

    Args:
      step: Function of the state, batch and key of one network that returns its next state and its metrics.
      place: Function that sets the placement of the state of one network.

    Returns:
      A function of S states, S batches and S keys, each a tuple, that returns S next states and the metrics of S networks,
      each a tuple.
    """

    def step_of_several(states: Trees, batches: Trees, keys: Trees) -> tuple[Trees, Trees]:
        new_states, metrics = jax.vmap(step)(_stack(states), _stack(batches), _stack(keys))
        count = len(states)
        return tuple(place(state) for state in _unstack(new_states, count)), _unstack(metrics, count)

    return step_of_several


def _stack(trees: Trees) -> Any:
    """One tree whose leaves have a leading axis S."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _unstack(tree: Any, count: int) -> Trees:
    return tuple(jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count))
