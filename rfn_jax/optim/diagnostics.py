"""temporary"""

import jax

from rfn_jax.optim import ascent


def diagnostics(opt_state):
    """temporary"""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, ascent.SamState))
    found = [x for x in leaves if isinstance(x, ascent.SamState)]
    if not found:
        return {}
    d = found[0]._asdict()
    d.pop('count')
    return d
