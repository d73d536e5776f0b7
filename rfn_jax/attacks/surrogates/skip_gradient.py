"""SGM: gradients of a residual network that favor the skip connections."""

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
        """Returns the logits of the surrogate."""
        count = 0

        def scale_branch(
            module: nn.Module, branch: hooks.Function, skip: hooks.Function
        ) -> tuple[hooks.Function, hooks.Function]:
            nonlocal count
            count += 1
            return lambda x: scale_gradient(branch(x), self.gamma), skip

        with hooks.intercept_sums((hooks.Residual, hooks.Concatenation), scale_branch):
            logits = attack.logits(self.surrogate, images, keys, step)
        if not count:
            raise errors.InputError('skip_gradient needs skip connections, but the surrogate has none')
        return logits


def skip_gradient(gamma: float = 0.2) -> Callable[[attack.Surrogate], SkipGradient]:
    r"""Skip gradient method (SGM): gradients decay along residual branches, but not along skips.

    If a block computes :math:`z_{i+1} = z_i + f_i(z_i)`, the gradient of the loss with respect to its input is replaced by

    .. math:: g_i = g_{i+1} \Big(1 + \gamma \frac{\partial f_i}{\partial z_i}\Big).

    The forward pass, and thus the loss, does not change. The layers of a DenseNet, where the skip is a concatenation, are
    treated in the same way. A block of a transformer has two such sums, after its attention and after its perceptron. This
    follows the definition in the paper; the authors' PyTorch code instead applies a power of gamma at each ReLU, and divides
    by the standard deviation of the gradient after each block.

    Args:
      gamma: Factor, in [0, 1]; 1 gives the plain gradient, and 0 keeps only the skips. The paper uses 0.2 for ResNets and 0.5
        for DenseNets.

    Returns:
      A function from a `Classifier`, or a surrogate made of Classifiers, to a surrogate.

    Raises:
      InputError: `gamma` is out of range. The returned function raises it if interceptions do not reach the surrogate, and
        the resulting surrogate raises it if the network has no skip connections.

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
    """Returns x unchanged, but multiplies its gradient by a number."""

    @jax.custom_vjp
    def identity(x: jax.Array) -> jax.Array:
        return x

    identity.defvjp(lambda x: (x, None), lambda _, g: (g * factor,))
    return identity(x)
