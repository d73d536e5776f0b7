"""Ghost networks: a surrogate with internal perturbations that are drawn anew at every step."""

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
    """A surrogate with random changes of its skips and activations, drawn anew at every step.

    Attributes:
      surrogate: The surrogate.
      skip_scale: Half the width of the interval around 1 from which the factors of skips are drawn, in [0, 1).
      dropout: Share of the activations that are set to 0, in [0, 1).
    """

    surrogate: attack.Surrogate
    skip_scale: float = struct.field(pytree_node=False)
    dropout: float = struct.field(pytree_node=False)

    varies = True

    def inner(self) -> tuple[attack.Surrogate, ...]:
        """The surrogate."""
        return (self.surrogate,)

    def at_step(self, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
        """Returns the logits of one ghost network per example, drawn with the example's key; the shape of `keys` is `[B]`."""
        inner_varies = attack.varies(self.surrogate)
        inner_keys = keys_lib.fold(keys, 0) if inner_varies else keys
        hook_keys = _HookKeys(keys_lib.fold(keys, 1) if inner_varies else keys)

        def erode_skip(
            module: nn.Module, branch: hooks.Function, skip: hooks.Function
        ) -> tuple[hooks.Function, hooks.Function]:
            keys = hook_keys.keys(module)
            return branch, lambda x: _scale_randomly(skip(x), keys, self.skip_scale)

        def erode_activation(call: Callable[..., jax.Array], module: nn.Module, *args: Any) -> jax.Array:
            keys = hook_keys.keys(module)
            return _drop_randomly(call(*args), keys, self.dropout)

        def count_network(call: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            hook_keys.networks += not module.path
            return call(*args, **kwargs)

        with contextlib.ExitStack() as stack:
            stack.enter_context(hooks.intercept(nn.Module, count_network))
            if self.skip_scale:
                stack.enter_context(hooks.intercept_sums(hooks.Residual, erode_skip))
            if self.dropout:
                stack.enter_context(hooks.intercept(hooks.Activation, erode_activation))
            logits = attack.logits(self.surrogate, images, inner_keys, step)
        if not hook_keys.numbers and (self.skip_scale or self.dropout):
            raise errors.InputError(
                f'ghost_network with skip_scale {self.skip_scale:g} and dropout {self.dropout:g} finds nothing to erode: '
                'skip_scale needs residual sums, and dropout needs activations'
            )
        return logits


class _HookKeys:
    """The keys of hooks, numbered in the order of their first calls; a hook that is called again keeps its number."""

    def __init__(self, keys: jax.Array):
        self.all_keys = keys
        self.networks = 0
        self.numbers: dict[tuple[int, tuple[str, ...]], int] = {}

    def keys(self, module: nn.Module) -> jax.Array:
        """Returns the keys `[B]` of a hook."""
        number = self.numbers.setdefault((self.networks, module.path), len(self.numbers))
        return keys_lib.fold(self.all_keys, number)


def _scale_randomly(x: jax.Array, keys: jax.Array, scale: float) -> jax.Array:
    factors = jax.vmap(lambda key: jax.random.uniform(key, (), minval=1 - scale, maxval=1 + scale))(keys)
    return x * factors.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


def _drop_randomly(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


def ghost_network(skip_scale: float = 0.22, dropout: float = 0.0) -> Callable[[attack.Surrogate], GhostNetwork]:
    r"""Ghost networks: skips and activations are eroded at random, separately for each example and at each step.

    Skip connection erosion draws a factor for each residual block, and dropout erosion draws a mask after each activation:

    .. math:: z_{i+1} = \lambda_i z_i + f_i(z_i), \quad \lambda_i \sim U(1 - \Lambda, 1 + \Lambda); \qquad
       a \mapsto \frac{r a}{1 - p}, \quad r \sim \mathrm{Bernoulli}(1 - p).

    The authors' code draws a factor for each channel, which is the same for the whole batch. Here, as in the paper, there is
    one factor per block; it is drawn with the key of the example, so that it does not depend on the batch.

    Args:
      skip_scale: :math:`\Lambda`, in [0, 1). 0.22 is the value in the authors' code for ResNet-50 (0.16 and 0.12 for
        ResNet-101 and 152), and in LGV.
      dropout: :math:`p`, in [0, 1); 0 by default, since residual networks are eroded at their skips. The authors use 0.006
        for Inception-v3.

    Returns:
      A function from a `Classifier`, or a surrogate made of Classifiers, to a surrogate that varies from step to step.

    Raises:
      InputError: A number is out of range. The returned function raises it if interceptions do not reach the surrogate, and
        the resulting surrogate raises it if the network has none of the residual sums or activations to be eroded.

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
