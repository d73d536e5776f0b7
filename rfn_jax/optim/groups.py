"""temporary"""

import jax
import jax.numpy as jnp


def state_change(new, old):
    """temporary"""

    def growth(n, o):
        if o.dtype == jnp.bool_:
            return n.astype(jnp.float32)
        return (n - o).astype(jnp.float32) if jnp.issubdtype(o.dtype, jnp.integer) else n

    return jax.tree.map(growth, new, old)


def merged_state(old, growth):
    """temporary"""

    def grown(o, g):
        if o.dtype == jnp.bool_:
            return g > 0.999
        if jnp.issubdtype(o.dtype, jnp.integer):
            return o + jnp.where(g > 0, jnp.maximum(jnp.round(g), 1), 0).astype(o.dtype)
        return g

    return jax.tree.map(grown, old, growth)
