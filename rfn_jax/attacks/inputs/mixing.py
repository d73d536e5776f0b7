"""Admix: copies of the image, each with a little of an image of another class mixed in.

Axes: `B` examples, `P` images of a pool, `H W` rows and columns, `C` channels.
"""

import jax
import jax.numpy as jnp

from rfn_jax.attacks import keys as keys_lib
from rfn_jax.attacks.inputs import transforms
from rfn_jax.core import checks, errors


def admix(
    mixes: int = 3, scales: int = 5, portion: float = 0.2, *, other_classes: bool = True
) -> transforms.InputTransform:
    r"""Admix: copies with a portion of another image added, divided by powers of two.

    .. math::
        T_{ji}(x) = (x + \eta x'_j) / 2^i, \qquad j = 0, ..., m_2 - 1, \quad i = 0, ..., m_1 - 1

    The other images :math:`x'_j` are drawn uniformly from the attack's pool with the key of the example. They are drawn anew
    at every step, and are the same for all scales of a mix; no gradient flows through them. Copy `scales * j + i` is
    :math:`T_{ji}`.

    The pool makes the result independent of the batch. TransferAttack instead mixes in adversarial images of the same batch,
    of any class.

    Args:
      mixes: :math:`m_2`, the number of other images, at least 1. 3 as in the paper and TransferAttack.
      scales: :math:`m_1`, the number of scales of each mix, at least 1. 5 as in the paper and TransferAttack.
      portion: :math:`\eta`, how much of the other image is added, in [0, 1]. 0.2 as in the paper and TransferAttack.
      other_classes: If True, the other image is of another class, as in the paper; an example for which the pool has no
        image of another class gets any image. If False, it is any image, as in TransferAttack.

    Returns:
      An input transform with `mixes * scales` copies; the attack must be called with a pool.

    Raises:
      InputError: `mixes`, `scales` or `portion` is out of range, or `other_classes` is not a boolean.

    References:
      Wang et al., `Admix: Enhancing the Transferability of Adversarial Attacks <https://arxiv.org/abs/2102.00436>`_, 2021.
    """
    mixes = checks.integer('mixes', mixes, at_least=1)
    scales = checks.integer('scales', scales, at_least=1)
    checks.number('portion', portion, at_least=0, at_most=1)
    if not isinstance(other_classes, bool):
        raise errors.InputTypeError(f'other_classes must be True or False, got {other_classes!r}')

    def apply(inputs: transforms.Input) -> jax.Array:
        pool = inputs.pool
        if pool is None:
            raise errors.InputError('admix mixes in other images: it needs a pool')
        mix, scale = jnp.divmod(inputs.copy, scales)
        if other_classes:
            allowed = inputs.labels[:, None] != pool.labels
        else:
            allowed = jnp.ones((len(inputs.images), len(pool.labels)), bool)
        chosen = jax.vmap(draw_partner)(keys_lib.fold(inputs.base_keys, mix), allowed)
        dtype = inputs.images.dtype
        others = jax.lax.stop_gradient(jnp.asarray(pool.images)[chosen]).astype(dtype)
        factors = jnp.asarray([0.5**i for i in range(scales)], dtype)
        return (inputs.images + jnp.asarray(portion, dtype) * others) * factors[scale]

    return transforms.InputTransform('admix', apply, mixes * scales, needs_pool=True)


def draw_partner(key: jax.Array, allowed: jax.Array) -> jax.Array:
    """Draws an index uniformly from the images of a pool that are `allowed`, bool `[P]`, or from all if none is."""
    allowed = allowed | ~jnp.any(allowed)
    rank = jax.random.randint(key, (), 0, jnp.sum(allowed))
    return jnp.argmax(jnp.cumsum(allowed) > rank)
