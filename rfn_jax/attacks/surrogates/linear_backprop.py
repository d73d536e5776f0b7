"""LinBP: gradients that pass through the ReLUs (and ReLU6s) of the later layers unchanged."""

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
    """A surrogate whose ReLUs and ReLU6s, from a certain layer on, leave gradients unchanged.

    Attributes:
      surrogate: The surrogate.
      from_layer: Name of the first layer with such ReLUs.
    """

    surrogate: attack.Surrogate
    from_layer: str = struct.field(pytree_node=False)

    def inner(self) -> tuple[attack.Surrogate, ...]:
        """The surrogate."""
        return (self.surrogate,)

    @property
    def evaluations(self) -> int:
        """Two for each gradient of the surrogate, since all residual branches from the layer on are differentiated twice.

        This is an upper bound, almost reached if the layer is the first of a residual network; a network without residual
        sums, such as a VGG, is differentiated only once.
        """
        return 2 * attack.evaluations(self.surrogate)

    def at_step(self, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
        """Returns the logits of the surrogate."""
        with _Interceptor(self.from_layer).intercept() as interceptor:
            logits = attack.logits(self.surrogate, images, keys, step)
        if not interceptor.count:
            raise errors.InputError(
                f'linear_backprop needs ReLUs from layer {self.from_layer!r} on, but the surrogate has none'
            )
        return logits


class _Interceptor:
    """The interceptions, and their record of which part of the network is running."""

    def __init__(self, from_layer: str):
        self.from_layer = from_layer
        self.active = False
        self.branch: str | None = None  # inside a residual branch that is called twice: 'true' or 'linear'
        self.count = 0

    @contextlib.contextmanager
    def intercept(self) -> Iterator['_Interceptor']:
        with (
            hooks.intercept(nn.Module, self._call_network),
            hooks.intercept_layer(self.from_layer, self._call_layer),
            hooks.intercept_sums(hooks.Residual, self._change_residual),
            hooks.intercept((hooks.Relu, hooks.Relu6), self._call_relu),
        ):
            yield self

    def _call_network(self, call: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not module.path:
            self.active = False  # another network may have run before
        return call(*args, **kwargs)

    def _call_layer(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.active = True
        return call(*args, **kwargs)

    def _call_relu(
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

    def _change_residual(
        self, module: nn.Module, branch: hooks.Function, skip: hooks.Function
    ) -> tuple[hooks.Function, hooks.Function]:
        if not self.active or self.branch is not None:
            return branch, skip

        def rescaled(x: jax.Array) -> jax.Array:
            true, linear = _fork(x)
            return _merge(self._call_branch('true', branch, true), self._call_branch('linear', branch, linear))

        return rescaled, skip

    def _call_branch(self, which: str, branch: hooks.Function, x: jax.Array) -> jax.Array:
        self.branch = which
        try:
            return branch(x)
        finally:
            self.branch = None


def linear_backprop(from_layer: str) -> Callable[[attack.Surrogate], LinearBackprop]:
    r"""Linear backpropagation (LinBP): from a certain layer on, ReLUs and ReLU6s have the gradient of the identity.

    The forward pass, and thus the loss, does not change. In a residual block, the gradient through the branch is rescaled,
    for each example, to the norm that it has with ordinary ReLUs, so that its ratio to that of the skip does not change:

    .. math:: g_i = g_{i+1} \frac{\partial s_i}{\partial z_i} + \alpha_i\, g_{i+1} \frac{\partial f_i^{lin}}{\partial z_i},
       \qquad \alpha_i = \Big\| g_{i+1} \frac{\partial f_i}{\partial z_i} \Big\|_2 \Big/
       \Big\| g_{i+1} \frac{\partial f_i^{lin}}{\partial z_i} \Big\|_2 .

    As in the authors' code, the ReLU after the sum of a block keeps its own gradient. Branches are differentiated twice.
    Other activations keep their gradients, and so do those inside squeeze-and-excitation. Nothing is rescaled at
    concatenations.

    Args:
      from_layer: Name of the first layer with linear ReLUs, a direct submodule of the network (`hooks.layers` lists them).
        The authors use `'layer3_1'` of a ResNet-50, and a layer near the middle of a VGG.

    Returns:
      A function from a `Classifier`, or a surrogate made of Classifiers, to a surrogate.

    Raises:
      InputError: `from_layer` is not a string. The returned function raises it if interceptions do not reach the surrogate,
        and the resulting surrogate raises it if the network has no layer of this name, or has neither a ReLU nor a ReLU6
        from there on.

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
    """`function(x)`, an array with the shape and dtype of x, but with the gradient of the identity."""
    return function(x)


linear.defvjp(lambda function, x: (function(x), None), lambda function, _, g: (g,))


@jax.custom_vjp
def _fork(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns x twice; for each example, the gradient is that of the second, rescaled to the norm of that of the first."""
    return x, x


def _fork_backward(_: None, gs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array]:
    true, linear = gs
    alpha = numerics.safe_divide(numerics.batch_norm_l2(true), numerics.batch_norm_l2(linear))
    return ((alpha * linear).astype(linear.dtype),)


_fork.defvjp(lambda x: ((x, x), None), _fork_backward)


@jax.custom_vjp
def _merge(true: jax.Array, linear: jax.Array) -> jax.Array:
    """Returns the first of two equal values; its gradient is passed to both."""
    return true


_merge.defvjp(lambda true, linear: (true, None), lambda _, g: (g, g))
