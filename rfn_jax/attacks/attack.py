"""The interfaces of surrogates and of attacks.

A surrogate is a function from images to logits, and a pytree. Some surrogates also get the step of the attack, because they
are a different network at each step, or are made of surrogates that are.

Axes: `B` examples, `H W` rows and columns, `C` channels, `K` classes, `M` members of an ensemble.
"""

import abc
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from rfn_jax.attacks import arguments, budget
from rfn_jax.attacks.inputs import transforms
from rfn_jax.core import errors
from rfn_jax.models import classifier as classifier_lib

Surrogate = Callable[[jax.Array], jax.Array]


class SteppedSurrogate(abc.ABC):
    """A surrogate that gets the step of the attack, such as a ghost network or an ensemble that contains one.

    Subclasses are pytrees whose leaves may change without recompilation.
    """

    @abc.abstractmethod
    def at_step(self, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
        """Returns the logits at a step.

        Args:
          images: `[B, H, W, C]` in [0, 1].
          keys: Keys `[B]`, one per example, new at every step.
          step: Number of the step, int32, starting at 0.

        Returns:
          Logits `[B, K]`, or `[M, B, K]` for an ensemble whose losses are averaged.
        """

    def inner(self) -> tuple[Surrogate, ...]:
        """The surrogates that this one is made of; empty if it is itself a network."""
        return ()

    @property
    def varies(self) -> bool:
        """Whether it is a different network at each step; by default, True if it has no inner surrogates or if one varies."""
        return not self.inner() or any(map(varies, self.inner()))

    @property
    def evaluations(self) -> int:
        """How many network gradients one gradient takes; by default one for each network that the surrogate is made of."""
        return sum(map(evaluations, self.inner())) or 1

    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns the logits of images `[B, H, W, C]`; only for a surrogate that is the same at every step.

        Raises:
          InputTypeError: The surrogate varies from step to step.
        """
        if self.varies:
            raise errors.InputTypeError(
                f'a {type(self).__name__} changes from step to step: call at_step(images, keys, step) instead'
            )
        return self.at_step(images, cast(jax.Array, None), 0)  # no keys: nothing is drawn


def logits(surrogate: Surrogate, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
    """Returns the logits of any surrogate at a step; arguments and result are those of `SteppedSurrogate.at_step`."""
    if isinstance(surrogate, SteppedSurrogate):
        return surrogate.at_step(images, keys, step)
    return surrogate(images)


compiled_logits = jax.jit(logits)


def varies(surrogate: Surrogate) -> bool:
    """Whether a surrogate is a different network at each step."""
    return isinstance(surrogate, SteppedSurrogate) and surrogate.varies


def evaluations(surrogate: Surrogate) -> int:
    """How many network gradients one gradient of a surrogate takes; 1 for a function or a `Classifier`."""
    return surrogate.evaluations if isinstance(surrogate, SteppedSurrogate) else 1


def check_hooks(surrogate: Surrogate, method: str) -> None:
    """Checks that interceptions by `models.hooks` reach the networks of a surrogate.

    They reach a `Classifier`, and a `SteppedSurrogate` that is made of Classifiers. They may not reach a function, since it
    may already have been compiled without them.

    Args:
      surrogate: The surrogate.
      method: The method that needs the interceptions, for the message.

    Raises:
      InputError: They do not reach the surrogate.
    """

    def is_reached(surrogate: Surrogate) -> bool:
        if isinstance(surrogate, SteppedSurrogate):
            return bool(surrogate.inner()) and all(map(is_reached, surrogate.inner()))
        return isinstance(surrogate, classifier_lib.Classifier)

    if not is_reached(surrogate):
        raise errors.InputError(
            f'{method} needs a Classifier, or a surrogate made of Classifiers, got {type(surrogate).__name__}'
        )


@struct.dataclass
class _SingleNetwork(SteppedSurrogate):
    """A placeholder for a surrogate that is a single network, used to count gradients."""

    def inner(self) -> tuple[Surrogate, ...]:
        return (classifier_lib.Classifier({}, nn.Module(), num_classes=1),)

    def at_step(self, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
        raise NotImplementedError


class Arguments(NamedTuple):
    """The checked arguments of a call to an attack.

    Attributes:
      surrogate: A callable pytree.
      images: `[B, H, W, C]` in [0, 1].
      labels: Integers `[B]`.
      keys: Keys `[B]`.
      target_labels: Integers `[B]` if the attack is targeted, otherwise None.
      pool: The pool if the attack needs one, otherwise None.
    """

    surrogate: Surrogate
    images: jax.Array
    labels: jax.Array
    keys: jax.Array
    target_labels: jax.Array | None
    pool: transforms.Pool | None


class Attack(abc.ABC):
    """The interface of all attacks: `attack(surrogate, images, labels, key) -> adversarial images`.

    Subclasses are hashable values, such as frozen dataclasses; equal attacks share compilations.

    Attributes:
      name: Name of the attack, for messages.
      limits: The budget; the result is inside it.
      targeted: Whether the attack is called with target labels.
      needs_pool: Whether it must be called with a pool of images to mix in.
      chunk_size: How many copies or neighbors are computed together, at least 1.
    """

    name: str
    targeted: bool
    chunk_size: int

    if TYPE_CHECKING:  # read-only, since these are fields in some subclasses and properties in others

        @property
        def limits(self) -> budget.Budget:
            """The budget."""

        @property
        def needs_pool(self) -> bool:
            """Whether the attack needs a pool."""

    @abc.abstractmethod
    def run(self, arguments: Arguments) -> jax.Array:
        """Returns the adversarial images `[B, H, W, C]`; called inside jit, once for each compilation."""

    @abc.abstractmethod
    def evaluations(self, surrogate: Surrogate) -> int:
        """Number of network gradients per example that the attack takes on a surrogate; forward passes do not count."""

    @property
    def gradient_evaluations(self) -> int:
        """Number of network gradients per example on a surrogate that is one network; see `evaluations` for others."""
        return self.evaluations(_SingleNetwork())

    def __call__(
        self,
        surrogate: Surrogate,
        images: ArrayLike,
        labels: ArrayLike,
        key: jax.Array,
        *,
        target_labels: ArrayLike | None = None,
        pool: transforms.Pool | tuple[ArrayLike, ArrayLike] | None = None,
    ) -> jax.Array:
        """Crafts adversarial images.

        The call is pure and can be jitted. Outside jit, it checks the values of its arguments and compiles the attack, once
        for all surrogates of the same architecture.

        Args:
          surrogate: Function from images in [0, 1] to logits `[B, K]`: a pytree such as `Classifier` or
            `jax.tree_util.Partial(apply_fn, variables)`, whose leaves may change without recompilation, or a plain
            function, which gets a compilation of its own. A surrogate that changes from step to step, such as a ghost
            network or a cycle of checkpoints, is a `SteppedSurrogate`. An ensemble whose losses are averaged returns logits
            `[M, B, K]`.
          images: Originals, float `[B, H, W, C]` in [0, 1].
          labels: True classes, int `[B]` in `[0, K)`.
          key: One key, from which each example gets its own by position, or one key per example `[B]`, such as
            `attacks.example_keys` derives from ids.
          target_labels: Classes to reach, int `[B]` in `[0, K)`; required for targeted attacks, and only for them.
          pool: Images and labels that transforms such as `admix` mix in; the same for every batch, so that the result does
            not depend on the batch.

        Returns:
          Adversarial images `[B, H, W, C]` inside the budget, of the same dtype as `images`.

        Raises:
          InputError: Images are outside [0, 1] or not finite, labels are out of range, types or shapes do not match, or
            target labels or a pool are missing. Under jit, only shapes and types are checked.
          RunError: The device ran out of memory.
        """
        images, labels = jnp.asarray(images), jnp.asarray(labels)
        if jax.tree_util.all_leaves([surrogate]):
            surrogate = jax.tree_util.Partial(surrogate)
        arguments.check_images(images)
        keys = arguments.split_key(key, len(images))
        shape = compiled_logits.eval_shape(surrogate, images, keys, 0)
        num_classes = arguments.check_logits(shape, len(images))
        arguments.check_labels(labels, len(images), num_classes)
        if self.targeted != (target_labels is not None):
            requirement = 'targeted: it needs' if self.targeted else 'not targeted: it takes no'
            raise errors.InputError(f'attack {self.name!r} is {requirement} target_labels')
        if target_labels is not None:
            target_labels = jnp.asarray(target_labels)
            arguments.check_labels(target_labels, len(images), num_classes)
        pool = arguments.check_pool(self.name, pool, images) if self.needs_pool else None
        with arguments.memory_advice(self.name, len(images), self.chunk_size):
            adversarial: jax.Array = _run(self, Arguments(surrogate, images, labels, keys, target_labels, pool))
            return adversarial


@functools.partial(jax.jit, static_argnums=0)
def _run(attack: Attack, arguments: Arguments) -> jax.Array:
    return attack.run(arguments)
