"""LinBP: gradients that pass the ReLUs (and ReLU6s) of the later layers as if they were not there."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
from flax import struct

from rfn_jax.attacks import attack
from rfn_jax.core import checks, errors, numerics
from rfn_jax.models import hooks


@struct.dataclass
class LinearBackprop(attack.SteppedSurrogate):
    """A surrogate whose ReLUs and ReLU6s pass gradients unchanged from a layer on.

    Attributes:
      surrogate: The surrogate.
      from_layer: Name of the first layer of which this is so.
    """

    surrogate: attack.Surrogate
    from_layer: str = struct.field(pytree_node=False)

    def inner(self) -> tuple[attack.Surrogate, ...]:
        """The surrogate."""
        return (self.surrogate,)

    @property
    def evaluations(self) -> int:
        """Two for each gradient of the surrogate, as all residual branches from the layer on are differentiated twice.

        This is an upper bound, which the first layer of a residual network comes close to; a network without residual
        sums, such as a VGG, is differentiated once.
        """
        return 2 * attack.evaluations(self.surrogate)

    def at_step(self, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
        """The logits of the surrogate."""
        with _Backward(self.from_layer).intercept() as backward:
            logits = attack.logits(self.surrogate, images, keys, step)
        if not backward.count:
            raise errors.InputError(
                f'linear_backprop needs ReLUs from layer {self.from_layer!r} on, and the surrogate has none'
            )
        return logits


class _Backward:
    """What the interceptions know of the place in the network."""

    def __init__(self, from_layer: str):
        self.from_layer = from_layer
        self.active = False
        self.branch: str | None = None  # inside of a residual branch that is called twice: 'true' or 'linear'
        self.count = 0

    @contextlib.contextmanager
    def intercept(self) -> Iterator['_Backward']:
        with (
            hooks.intercept(nn.Module, self._network),
            hooks.intercept_layer(self.from_layer, self._start),
            hooks.intercept(hooks.Residual, self._residual),
            hooks.intercept((hooks.Relu, hooks.Relu6), self._relu),
        ):
            yield self

    def _network(self, call: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not module.path:
            self.active = False  # another network may have been before
        return call(*args, **kwargs)

    def _start(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.active = True
        return call(*args, **kwargs)

    def _relu(
        self,
        call: Callable[..., jax.Array],
        module: hooks.Relu | hooks.Relu6,
        x: jax.Array,
        function: hooks.Function | None = None,
    ) -> jax.Array:
        if not self.active or self.branch == 'true' or module.after_sum:
            return call(x, function)
        self.count += 1
        return call(x, functools.partial(linear, function or module.function))

    def _residual(
        self,
        call: Callable[..., jax.Array],
        module: nn.Module,
        x: jax.Array,
        branch: hooks.Function,
        skip: hooks.Function = hooks.identity,
    ) -> jax.Array:
        def rescaled(x: jax.Array) -> jax.Array:
            true, linear = _fork(x)
            return _merge(self._inside('true', branch, true), self._inside('linear', branch, linear))

        return call(x, rescaled if self.active and self.branch is None else branch, skip)

    def _inside(self, which: str, branch: hooks.Function, x: jax.Array) -> jax.Array:
        self.branch = which
        try:
            return branch(x)
        finally:
            self.branch = None


def linear_backprop(from_layer: str) -> Callable[[attack.Surrogate], LinearBackprop]:
    r"""Linear backpropagation (LinBP): from a layer on, ReLUs pass the gradient as the identity does, and ReLU6s too.

    The forward pass, and so the loss, is as before. In a residual block the gradient through the branch is scaled back to
    the norm that it has with ReLUs, for each example, so that the ratio to the skip stays:

    .. math:: g_i = g_{i+1} \frac{\partial s_i}{\partial z_i} + \alpha_i\, g_{i+1} \frac{\partial f_i^{lin}}{\partial z_i},
       \qquad \alpha_i = \Big\| g_{i+1} \frac{\partial f_i}{\partial z_i} \Big\|_2 \Big/
       \Big\| g_{i+1} \frac{\partial f_i^{lin}}{\partial z_i} \Big\|_2 .

    As in the authors' code, the ReLU after the sum of a block keeps its own gradient. Branches are differentiated twice.
    Other activations keep their gradients, those inside of squeeze-and-excitation as well; a concatenation rescales nothing.

    Args:
      from_layer: Name of the first layer with linear ReLUs, a direct submodule of the network (`hooks.layers` lists them).
        The authors take `'layer3_1'` of a ResNet-50, and about the middle of a VGG.

    Returns:
      A function of a `Classifier`, or of another surrogate made of them, to a surrogate.

    Raises:
      InputError: `from_layer` is not a string; of the function: interceptions do not reach the surrogate; of the surrogate:
        the network has no layer of this name, or neither ReLU nor ReLU6 from there on.

    References:
      Guo et al., `Backpropagating Linearly Improves Transferability of Adversarial Examples
      <https://arxiv.org/abs/2012.03528>`_, 2020; its `code <https://github.com/qizhangli/linbp-attack>`_.
    """
    checks.string('from_layer of linear_backprop', from_layer, 'the name of a layer')

    def transform(surrogate: attack.Surrogate) -> LinearBackprop:
        attack.check_hooks(surrogate, 'linear_backprop')
        return LinearBackprop(surrogate, from_layer)

    return transform


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def linear(function: hooks.Function, x: jax.Array) -> jax.Array:
    """`function(x)`, an array of the shape and type of x, with the gradient of the identity."""
    return function(x)


linear.defvjp(lambda function, x: (function(x), None), lambda function, _, g: (g,))


@jax.custom_vjp
def _fork(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x twice; the gradient is that of the second, with the norm of the first's, for each example."""
    return x, x


def _fork_backward(_: None, gs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array]:
    true, linear = gs
    alpha = numerics.safe_divide(numerics.batch_norm_l2(true), numerics.batch_norm_l2(linear))
    return ((alpha * linear).astype(linear.dtype),)


_fork.defvjp(lambda x: ((x, x), None), _fork_backward)


@jax.custom_vjp
def _merge(true: jax.Array, linear: jax.Array) -> jax.Array:
    """The value that both have, with its gradient for both."""
    return true


_merge.defvjp(lambda true, linear: (true, None), lambda _, g: (g, g))
