"""Hooks: the places where methods can change a network from outside, without the network knowing of these methods.

A network adds its residual branches with `Residual`, concatenates features with `Concatenation` if it is a DenseNet, and
calls its activations through subclasses of `Activation`, such as `Relu`. Functions inside a gate, as in
squeeze-and-excitation, do not count as activations of the network and are not hooks. These modules have no parameters; they
get the functions that they apply as arguments. `intercept` puts a function in front of them, and `intercept_sums` changes
the branches and skips:

    def halved(module, branch, skip):
        return lambda x: branch(x) / 2, skip

    with hooks.intercept_sums(hooks.Residual, halved):
        logits = classifier(images)

Several interceptions compose as long as each only changes the arguments or the result of `call` and calls it once. The
layers of a network are its named direct submodules, such as `layer1_0`; `layers` lists them and `outputs` records their
outputs.

An interception acts while a network is traced, so a function that was compiled inside one must not be used outside.
Interceptions therefore belong in the `__call__` of a pytree whose static fields say what is changed.
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
    """Returns x: the skip of a residual block that does not change the shape."""
    return x


class Residual(nn.Module):
    """A residual sum, `skip(x) + branch(x)`.

    The submodules that the two functions call are created beforehand, by the enclosing module, so that a method can call
    the functions twice.
    """

    def __call__(self, x: jax.Array, branch: Function, skip: Function = identity) -> jax.Array:
        """The sum of two functions of x, which must return arrays of the same shape."""
        y = branch(x)
        return skip(x) + y


class Concatenation(nn.Module):
    """The dense counterpart of a residual sum: the channels of `skip(x)`, then those of `branch(x)`."""

    def __call__(self, x: jax.Array, branch: Function, skip: Function = identity) -> jax.Array:
        """The results of two functions of x, concatenated along the last axis."""
        y = branch(x)
        return jnp.concatenate([skip(x), y], axis=-1)


class Activation(nn.Module):
    """The base class of activations, through which all of them can be intercepted; each subclass has its own `function`.

    Attributes:
      after_sum: Whether it follows a residual sum, and so acts on the skip as well as on the branch.
    """

    after_sum: bool = False

    def __call__(self, x: jax.Array, function: Function | None = None) -> jax.Array:
        """`function(x)`, an array with the shape of x; by default, `function` is that of the class."""
        return (function or self.function)(x)


class Relu(Activation):
    """The rectifier."""

    function = staticmethod(nn.relu)


class Gelu(Activation):
    """The exact GELU."""

    function = staticmethod(functools.partial(nn.gelu, approximate=False))


class Relu6(Activation):
    """The rectifier, capped at 6."""

    function = staticmethod(nn.relu6)


class Silu(Activation):
    """The SiLU (swish), `x sigmoid(x)`."""

    function = staticmethod(nn.silu)


class HardSwish(Activation):
    """The piecewise approximation of the SiLU, `x relu6(x + 3) / 6`."""

    function = staticmethod(nn.hard_swish)


@contextlib.contextmanager
def intercept(kind: type[nn.Module] | tuple[type[nn.Module], ...], function: Callable[..., Any]) -> Iterator[None]:
    """Replaces calls of modules of a class by `function(call, module, *args, **kwargs)` while the context is open.

    Args:
      kind: Class of the modules, or a tuple of classes.
      function: Gets the original call, the module, and the arguments of the call.
    """

    def interceptor(call, args, kwargs, context):
        if context.method_name == '__call__' and isinstance(context.module, kind):
            return function(call, context.module, *args, **kwargs)
        return call(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        yield


@contextlib.contextmanager
def intercept_sums(
    kind: type[nn.Module] | tuple[type[nn.Module], ...],
    change: Callable[[nn.Module, Function, Function], tuple[Function, Function]],
) -> Iterator[None]:
    """Replaces the branches and skips of residual sums while the context is open.

    Args:
      kind: `Residual` or `Concatenation`, or a tuple of both.
      change: Maps the module, its branch and its skip to another branch and another skip.
    """

    def changed(call, module, x, branch, skip=identity):
        return call(x, *change(module, branch, skip))

    with intercept(kind, changed):
        yield


@contextlib.contextmanager
def intercept_layer(layer: str, function: Callable[..., Any]) -> Iterator[None]:
    """Replaces calls of a layer by `function(call, *args, **kwargs)` while the context is open.

    Args:
      layer: Name of a direct submodule of the network.
      function: Gets the original call and its arguments.

    Raises:
      InputError: A network that runs inside the context has no such layer.
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
    """Yields a list to which the output of a layer is appended whenever a network runs while the context is open.

    Raises:
      InputError: A network that runs inside the context has no such layer.
    """
    recorded = []

    def record(call, *args, **kwargs):
        recorded.append(call(*args, **kwargs))
        return recorded[-1]

    with intercept_layer(layer, record):
        yield recorded


def layers(classifier: Callable[[jax.Array], jax.Array], image_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Lists the names of the layers of a classifier, each once, in the order of their first calls; nothing is computed.

    Args:
      classifier: A `Classifier`.
      image_shape: `(H, W, C)`.
    """
    names = {}

    def visit(call, module, *args, **kwargs):
        if len(module.path) == 1:
            names[module.name] = True
        return call(*args, **kwargs)

    with intercept(nn.Module, visit):
        jax.eval_shape(lambda c, x: c(x), classifier, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return tuple(names)
