"""SGM: gradients through a residual network that prefer the skip connections."""

from collections.abc import Callable

import flax.linen as nn
import jax
from flax import struct

from rfn_jax.attacks import attack
from rfn_jax.core import checks, errors
from rfn_jax.models import hooks


@struct.dataclass
class SkipGradient(attack.SteppedSurrogate):
    """A surrogate whose gradients through residual branches are multiplied by `gamma`.

    Attributes:
      surrogate: The surrogate.
      gamma: Factor, in [0, 1].
    """

    surrogate: attack.Surrogate
    gamma: float = struct.field(pytree_node=False)

    def inner(self) -> tuple[attack.Surrogate, ...]:
        """The surrogate."""
        return (self.surrogate,)

    def at_step(self, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
        """The logits of the surrogate."""
        count = 0

        def scaled(
            call: Callable[..., jax.Array],
            module: nn.Module,
            x: jax.Array,
            branch: hooks.Function,
            skip: hooks.Function = hooks.identity,
        ) -> jax.Array:
            nonlocal count
            count += 1
            return call(x, lambda x: scale_gradient(branch(x), self.gamma), skip)

        with hooks.intercept((hooks.Residual, hooks.Concatenation), scaled):
            logits = attack.logits(self.surrogate, images, keys, step)
        if not count:
            raise errors.InputError('skip_gradient needs skip connections, and the surrogate has none')
        return logits


def skip_gradient(gamma: float = 0.2) -> Callable[[attack.Surrogate], SkipGradient]:
    r"""Skip gradient method (SGM): gradients decay along residual branches, and not along skips.

    Where a block computes :math:`z_{i+1} = z_i + f_i(z_i)`, the gradient of the loss at its input is taken as

    .. math:: g_i = g_{i+1} \Big(1 + \gamma \frac{\partial f_i}{\partial z_i}\Big);

    the forward pass, and so the loss, is as before. The layers of a DenseNet, where the skip is a concatenation, are treated
    alike. A transformer has two such sums in a block, behind its attention and behind its perceptron. The authors' PyTorch
    code puts a power of gamma on every ReLU instead, and divides by the standard deviation of the gradient after every
    block; this is the definition of the paper.

    Args:
      gamma: Factor, in [0, 1]; 1 is the plain gradient, and 0 leaves the skips alone. 0.2 is the paper's for ResNets (0.5
        for DenseNets).

    Returns:
      A function of a `Classifier`, or of another surrogate made of them, to a surrogate.

    Raises:
      InputError: `gamma` is out of its range; of the function: interceptions do not reach the surrogate; of the surrogate:
        the network has no skip connections.

    References:
      Wu et al., `Skip Connections Matter: On the Transferability of Adversarial Examples Generated with ResNets
      <https://arxiv.org/abs/2002.05990>`_, 2020.
    """
    gamma = checks.number('gamma of skip_gradient', gamma, at_least=0, at_most=1)

    def transform(surrogate: attack.Surrogate) -> SkipGradient:
        attack.check_hooks(surrogate, 'skip_gradient')
        return SkipGradient(surrogate, gamma)

    return transform


def scale_gradient(x: jax.Array, factor: float) -> jax.Array:
    """x itself, with gradients multiplied by a number."""

    @jax.custom_vjp
    def scaled(x: jax.Array) -> jax.Array:
        return x

    scaled.defvjp(lambda x: (x, None), lambda _, g: (g * factor,))
    return scaled(x)
