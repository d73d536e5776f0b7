"""One state of a minimizer from those of several groups.

With m-sharpness the minimizer runs once for each group of the batch, all from one state. What each run changed is averaged
over the groups, and the mean change makes the next state. All that is averaged is float32 (float64 for what is float64), so
that it can go with the gradients in one all-reduce.
"""

import jax
import jax.numpy as jnp
import optax

from rfn_jax.core import errors, numerics


def state_change(new: optax.OptState, old: optax.OptState) -> optax.OptState:
    """What an update made of a state, in a form that can be averaged over groups.

    Args:
      new: The state after the update of one group.
      old: The state before, the same for all groups.

    Returns:
      A pytree of the same structure: of floats the new values, of counters by how much they grew, and of booleans 1 where
      they do not hold and 0 where they do; float32, or float64 where the state is.

    Raises:
      InputError: A leaf is something else than floats, booleans or a counter (a signed integer without axes), such as the key
        of a random generator, since a mean of those means nothing.
    """

    def change(path: tuple[object, ...], n: jax.Array, o: jax.Array) -> jax.Array:
        if jnp.issubdtype(o.dtype, jnp.floating):
            return numerics.wide(n)
        if o.dtype == jnp.bool_:
            return jnp.logical_not(n).astype(jnp.float32)
        if _is_counter(o):
            return (n - o).astype(jnp.float32)
        raise errors.InputError(
            'the state of a minimizer that runs by groups may hold floats, booleans and counters (signed integers without '
            f'axes), got {o.dtype}{list(o.shape)} at {jax.tree_util.keystr(path)}: move the transformation that keeps it to '
            'the descent'
        )

    return jax.tree_util.tree_map_with_path(change, new, old)


def merged_state(old: optax.OptState, mean_change: optax.OptState) -> optax.OptState:
    """The state after an update by groups.

    Args:
      old: The state before.
      mean_change: The mean over the groups of what `state_change` gives.

    Returns:
      The next state. Floats are means. Counters move by the rounded mean: as in each group where all agree, also where they
      start again (by up to 2^24 over the number of groups); one that grew in the mean has grown at least by 1. Booleans hold
      if they hold in all groups.
    """

    def merged(o: jax.Array, mean: jax.Array) -> jax.Array:
        if o.dtype == jnp.bool_:
            return mean == 0
        if _is_counter(o):
            mean = jnp.where(mean > 0, jnp.maximum(jnp.round(mean), 1), jnp.round(mean))
            return o + mean.astype(o.dtype)
        return mean.astype(o.dtype)

    return jax.tree.map(merged, old, mean_change)


def _is_counter(leaf: jax.Array) -> bool:
    return leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.signedinteger)
