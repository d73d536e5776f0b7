"""Hooks: the places of a network that methods may change from outside, without a network that knows of them.

A network adds its residual branches with `Residual`, grows by `Concatenation` where it is a DenseNet, and calls its
activations through kinds of `Activation`, such as `Relu`. What is inside of a gate, as in squeeze-and-excitation, is no
activation of the network, and no hook. These modules have no parameters; what they compute are functions among their
arguments. `intercept` puts a function in front of them:

    def halved(call, module, x, branch, skip=hooks.identity):
        return call(x, lambda x: branch(x) / 2, skip)

    with hooks.intercept(hooks.Residual, halved):
        logits = classifier(images)

Several interceptions compose as long as each changes the arguments or the result of `call`, and calls it once. The layers
of a network are its named direct submodules, such as `layer1_0`; `layers` lists them and `outputs` reads their values.

An interception acts while a network is traced: what is compiled inside of one must not be used outside, so it belongs in
the `__call__` of a pytree whose static fields say what is changed.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.core import errors

Function = Callable[[jax.Array], jax.Array]


def identity(x: jax.Array) -> jax.Array:
    """x itself: the skip of a residual block that keeps its shape."""
    return x


class Residual(nn.Module):
    """A residual sum, `skip(x) + branch(x)`.

    The submodules that the two functions call are made before, by the module around it: then a method may call them twice.
    """

    def __call__(self, x: jax.Array, branch: Function, skip: Function = identity) -> jax.Array:
        """The sum of two functions of x that give arrays of one shape."""
        y = branch(x)
        return skip(x) + y


class Concatenation(nn.Module):
    """The dense counterpart of a residual sum: the channels of `skip(x)`, then those of `branch(x)`."""

    def __call__(self, x: jax.Array, branch: Function, skip: Function = identity) -> jax.Array:
        """Two functions of x side by side in the last axis."""
        y = branch(x)
        return jnp.concatenate([skip(x), y], axis=-1)


class Activation(nn.Module):
    """An activation, of which each kind has a `function` of its own; to intercept all together.

    Attributes:
      after_sum: Whether it follows a residual sum, and so acts on the skip as well as on the branch.
    """

    after_sum: bool = False

    def __call__(self, x: jax.Array, function: Function | None = None) -> jax.Array:
        """`function(x)`, by default the function of the kind, an array of the shape of x."""
        return (function or self.function)(x)


class Relu(Activation):
    """The rectifier."""

    function = staticmethod(nn.relu)


class Gelu(Activation):
    """The exact GELU."""

    function = staticmethod(functools.partial(nn.gelu, approximate=False))


class Relu6(Activation):
    """The rectifier that is cut at 6."""

    function = staticmethod(nn.relu6)


class Silu(Activation):
    """The SiLU (swish), `x sigmoid(x)`."""

    function = staticmethod(nn.silu)


class HardSwish(Activation):
    """The piecewise form of the SiLU, `x relu6(x + 3) / 6`."""

    function = staticmethod(nn.hard_swish)


@contextlib.contextmanager
def intercept(kind: type[nn.Module] | tuple[type[nn.Module], ...], function: Callable[..., Any]) -> Iterator[None]:
    """While the context is open, calls of modules of a kind go to `function(call, module, *args, **kwargs)`.

    Args:
      kind: Class of the modules, or several.
      function: Gets the call that it stands before, the module, and the arguments.
    """

    def interceptor(call, args, kwargs, context):
        if context.method_name == '__call__' and isinstance(context.module, kind):
            return function(call, context.module, *args, **kwargs)
        return call(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        yield


@contextlib.contextmanager
def at_layer(layer: str, function: Callable[..., Any]) -> Iterator[None]:
    """While the context is open, calls of a layer go to `function(call, *args, **kwargs)`.

    Args:
      layer: Name of a direct submodule of the network.
      function: Gets the call that it stands before, and the arguments.

    Raises:
      InputError: A network that runs inside has no such layer.
    """
    names = []

    def visit(call, module, *args, **kwargs):
        if not module.path:
            names.clear()
            result = call(*args, **kwargs)
            if layer not in names:
                raise errors.InputError(f'unknown layer {layer!r}; the layers are {", ".join(names)}')
            return result
        if len(module.path) == 1:
            names.append(module.name)
        return function(call, *args, **kwargs) if module.path == (layer,) else call(*args, **kwargs)

    with intercept(nn.Module, visit):
        yield


@contextlib.contextmanager
def outputs(layer: str) -> Iterator[list[jax.Array]]:
    """A list that gets the output of a layer whenever a network runs while the context is open.

    Raises:
      InputError: A network that runs inside has no such layer.
    """
    found = []

    def keep(call, *args, **kwargs):
        found.append(call(*args, **kwargs))
        return found[-1]

    with at_layer(layer, keep):
        yield found


def layers(classifier: Callable[[jax.Array], jax.Array], image_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Names of the layers of a classifier in the order in which they are called; nothing is computed.

    Args:
      classifier: A `Classifier`.
      image_shape: `(H, W, C)`.

    Returns:
      The names, each once.
    """
    names = {}

    def visit(call, module, *args, **kwargs):
        if len(module.path) == 1:
            names[module.name] = True
        return call(*args, **kwargs)

    with intercept(nn.Module, visit):
        jax.eval_shape(lambda c, x: c(x), classifier, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return tuple(names)
