"""Ghost networks: a surrogate that is perturbed inside, anew at every step."""

import contextlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from rfn_jax.attacks import attack
from rfn_jax.attacks import keys as keys_lib
from rfn_jax.core import checks, errors
from rfn_jax.models import hooks


@struct.dataclass
class GhostNetwork(attack.SteppedSurrogate):
    """A surrogate with random skips and activations, drawn anew at every step.

    Attributes:
      surrogate: The surrogate.
      skip_scale: Half the width of the interval around 1 that the factors of skips are drawn from, in [0, 1).
      dropout: Part of the activations that is set to 0, in [0, 1).
    """

    surrogate: attack.Surrogate
    skip_scale: float = struct.field(pytree_node=False)
    dropout: float = struct.field(pytree_node=False)

    varies = True

    def inner(self) -> tuple[attack.Surrogate, ...]:
        """The surrogate."""
        return (self.surrogate,)

    def at_step(self, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
        """The logits of one ghost network for each example, drawn from its key; `keys` is `[B]`."""
        inner_varies = attack.varies(self.surrogate)
        inner_keys = keys_lib.fold(keys, 0) if inner_varies else keys
        sites = _Sites(keys_lib.fold(keys, 1) if inner_varies else keys)

        def erode_skip(
            call: Callable[..., jax.Array],
            module: nn.Module,
            x: jax.Array,
            branch: hooks.Function,
            skip: hooks.Function = hooks.identity,
        ) -> jax.Array:
            keys = sites.keys(module)
            return call(x, branch, lambda x: _scaled(skip(x), keys, self.skip_scale))

        def erode_activation(call: Callable[..., jax.Array], module: nn.Module, *args: Any) -> jax.Array:
            keys = sites.keys(module)
            return _dropped(call(*args), keys, self.dropout)

        def follow(call: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            sites.networks += not module.path
            return call(*args, **kwargs)

        with contextlib.ExitStack() as stack:
            stack.enter_context(hooks.intercept(nn.Module, follow))
            if self.skip_scale:
                stack.enter_context(hooks.intercept(hooks.Residual, erode_skip))
            if self.dropout:
                stack.enter_context(hooks.intercept(hooks.Activation, erode_activation))
            logits = attack.logits(self.surrogate, images, inner_keys, step)
        if not sites.numbers and (self.skip_scale or self.dropout):
            raise errors.InputError(
                f'ghost_network with skip_scale {self.skip_scale:g} and dropout {self.dropout:g} finds nothing to erode: '
                'skip_scale needs residual sums, and dropout activations'
            )
        return logits


class _Sites:
    """Numbers of the hooks in the order in which they are first called, the same when a hook is called again."""

    def __init__(self, keys: jax.Array):
        self.all_keys = keys
        self.networks = 0
        self.numbers: dict[tuple[int, tuple[str, ...]], int] = {}

    def keys(self, module: nn.Module) -> jax.Array:
        """Keys `[B]` of the hook."""
        number = self.numbers.setdefault((self.networks, module.path), len(self.numbers))
        return keys_lib.fold(self.all_keys, number)


def _scaled(x: jax.Array, keys: jax.Array, scale: float) -> jax.Array:
    factors = jax.vmap(lambda key: jax.random.uniform(key, (), minval=1 - scale, maxval=1 + scale))(keys)
    return x * factors.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


def _dropped(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


def ghost_network(skip_scale: float = 0.22, dropout: float = 0.0) -> Callable[[attack.Surrogate], GhostNetwork]:
    r"""Ghost networks: skips and activations are eroded at random, for each example and anew at every step.

    Skip connection erosion draws a factor for every residual block, and dropout erosion a mask after every activation:

    .. math:: z_{i+1} = \lambda_i z_i + f_i(z_i), \quad \lambda_i \sim U(1 - \Lambda, 1 + \Lambda); \qquad
       a \mapsto \frac{r a}{1 - p}, \quad r \sim \mathrm{Bernoulli}(1 - p).

    The authors' code draws a factor for each channel, and the same for the whole batch; here as in the paper it is one for
    a block, and drawn from the key of the example, so that it does not depend on the batch.

    Args:
      skip_scale: :math:`\Lambda`, in [0, 1). 0.22 is that of the authors' code for ResNet-50 (0.16 and 0.12 for ResNet-101
        and 152), and LGV's.
      dropout: :math:`p`, in [0, 1); 0 because residual networks are eroded at the skips. The authors' for Inception-v3 is
        0.006.

    Returns:
      A function of a `Classifier`, or of another surrogate made of them, to a surrogate that varies by step.

    Raises:
      InputError: A number is out of its range; of the function: interceptions do not reach the surrogate; of the surrogate:
        the network has no residual sums or activations for what is to be eroded.

    References:
      Li et al., `Learning Transferable Adversarial Examples via Ghost Networks <https://arxiv.org/abs/1812.03413>`_, 2020;
      its `code <https://github.com/LiYingwei/ghost-network>`_.
    """
    skip_scale = checks.number('skip_scale of ghost_network', skip_scale, at_least=0, below=1)
    dropout = checks.number('dropout of ghost_network', dropout, at_least=0, below=1)

    def transform(surrogate: attack.Surrogate) -> GhostNetwork:
        attack.check_hooks(surrogate, 'ghost_network')
        return GhostNetwork(surrogate, skip_scale, dropout)

    return transform
