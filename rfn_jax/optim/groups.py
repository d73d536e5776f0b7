"""Merges the minimizer states that result from the groups of a batch.

With m-sharpness, the minimizer runs once for each group of the batch, each time from the same state. The changes that these
runs make to the state are averaged over the groups, and the mean change gives the next state. The averaged values are
float32 (float64 for float64 leaves), so that they can share one all-reduce with the gradients.
"""

import jax
import jax.numpy as jnp
import optax

from rfn_jax.core import errors, numerics


def state_change(new: optax.OptState, old: optax.OptState) -> optax.OptState:
    """Returns the change that an update made to a state, in a form that can be averaged over groups.

    Args:
      new: The state after the update of one group.
      old: The state before the update, the same for all groups.

    Returns:
      A pytree of the same structure: the new values of floats, the increments of counters, and for booleans 1 if false and 0
      if true. Its leaves are float32, or float64 where those of the state are.

    Raises:
      InputError: A leaf holds neither floats nor booleans and is not a counter (a scalar signed integer); for example, it is
        a random key. The mean of such leaves would be meaningless.
    """

    def leaf_change(path: tuple[object, ...], new: jax.Array, old: jax.Array) -> jax.Array:
        if jnp.issubdtype(old.dtype, jnp.floating):
            return numerics.wide(new)
        if old.dtype == jnp.bool_:
            return jnp.logical_not(new).astype(jnp.float32)
        if _is_counter(old):
            return (new - old).astype(jnp.float32)
        raise errors.InputError(
            'the state of a minimizer that runs once per group may only hold floats, booleans and counters (scalar signed '
            f'integers), got {old.dtype}{list(old.shape)} at {jax.tree_util.keystr(path)}: move the transformation that '
            'keeps it to the descent'
        )

    return jax.tree_util.tree_map_with_path(leaf_change, new, old)


def merged_state(old: optax.OptState, mean_change: optax.OptState) -> optax.OptState:
    """Returns the state after an update in which the minimizer ran once for each group.

    Args:
      old: The state before the update.
      mean_change: The mean over the groups of the results of `state_change`.

    Returns:
      The next state. Floats are means over the groups. Counters change by the rounded mean of their increments, but by at
      least 1 if that mean is positive. If all groups agree on an increment, the result is that of each group, even if the
      counter was reset (for changes of up to 2^24 divided by the number of groups). Booleans are true if they are true in
      all groups.
    """

    def merge_leaf(old: jax.Array, mean: jax.Array) -> jax.Array:
        if old.dtype == jnp.bool_:
            return mean == 0
        if _is_counter(old):
            mean = jnp.where(mean > 0, jnp.maximum(jnp.round(mean), 1), jnp.round(mean))
            return old + mean.astype(old.dtype)
        return mean.astype(old.dtype)

    return jax.tree.map(merge_leaf, old, mean_change)


def _is_counter(leaf: jax.Array) -> bool:
    return leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.signedinteger)
