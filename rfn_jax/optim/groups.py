"""One state of a minimizer from those of several groups.

With m-sharpness the minimizer runs once for each group of the batch, all from one state. What each run changed is averaged
over the groups, which is one all-reduce since it is all float32, and the mean change makes the next state.
"""

import jax
import jax.numpy as jnp
import optax


def state_change(new: optax.OptState, old: optax.OptState) -> optax.OptState:
    """What an update made of a state, in a form that can be averaged over groups.

    Args:
      new: The state after the update of one group.
      old: The state before, the same for all groups.

    Returns:
      A pytree of the same structure: of floats the new values, of integers by how much they grew, and of booleans 0 or 1,
      the latter two as float32.
    """

    def change(n, o):
        if o.dtype == jnp.bool_:
            return n.astype(jnp.float32)
        return (n - o).astype(jnp.float32) if jnp.issubdtype(o.dtype, jnp.integer) else n

    return jax.tree.map(change, new, old)


def merged_state(old: optax.OptState, mean_change: optax.OptState) -> optax.OptState:
    """The state after an update by groups.

    Args:
      old: The state before.
      mean_change: The mean over the groups of what `state_change` gives.

    Returns:
      The next state: of floats the mean; integers are counters, and one that grew in some of the groups has grown, by the
      rounded mean and at least by 1; a boolean holds if it holds in all groups.
    """

    def merged(o, mean):
        if o.dtype == jnp.bool_:
            return mean > 0.999  # a mean of ones, but for rounding
        if jnp.issubdtype(o.dtype, jnp.integer):
            return o + jnp.where(mean > 0, jnp.maximum(jnp.round(mean), 1), 0).astype(o.dtype)
        return mean

    return jax.tree.map(merged, old, mean_change)
