"""What a surrogate is, and what an attack is.

A surrogate is a function from images to logits, and a pytree. Some are told the step of the attack as well, since they are
another network at each, or are made of surrogates that are.

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
    """A surrogate that is told the step of the attack, such as a ghost network, or an ensemble with one in it.

    Subclasses are pytrees, whose leaves may change without a new compilation.
    """

    @abc.abstractmethod
    def at_step(self, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
        """The logits at a step.

        Args:
          images: `[B, H, W, C]` in [0, 1].
          keys: Keys `[B]`, one per example and new at every step.
          step: Number of the step, int32, from 0.

        Returns:
          Logits `[B, K]`, or `[M, B, K]` of an ensemble whose losses are averaged.
        """

    def inner(self) -> tuple[Surrogate, ...]:
        """The surrogates that it is made of; empty if it is a network of its own."""
        return ()

    @property
    def varies(self) -> bool:
        """Whether it is another network at another step; if it is made of surrogates, by default if one of them is."""
        return not self.inner() or any(map(varies, self.inner()))

    @property
    def evaluations(self) -> int:
        """Gradients of networks for one gradient; by default one for each network that it is made of."""
        return sum(map(evaluations, self.inner())) or 1

    def __call__(self, images: jax.Array) -> jax.Array:
        """The logits of images `[B, H, W, C]`, of a surrogate that is the same at every step.

        Raises:
          InputTypeError: It is not.
        """
        if self.varies:
            raise errors.InputTypeError(
                f'a {type(self).__name__} changes from step to step: it needs at_step(images, keys, step)'
            )
        return self.at_step(images, cast(jax.Array, None), 0)  # draws nothing


def logits(surrogate: Surrogate, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
    """The logits of any surrogate at a step; arguments and result are those of `SteppedSurrogate.at_step`."""
    if isinstance(surrogate, SteppedSurrogate):
        return surrogate.at_step(images, keys, step)
    return surrogate(images)


compiled_logits = jax.jit(logits)


def varies(surrogate: Surrogate) -> bool:
    """Whether a surrogate is another network at another step."""
    return isinstance(surrogate, SteppedSurrogate) and surrogate.varies


def evaluations(surrogate: Surrogate) -> int:
    """How many gradients of networks one gradient of a surrogate takes; 1 for a function or a `Classifier`."""
    return surrogate.evaluations if isinstance(surrogate, SteppedSurrogate) else 1


def check_hooks(surrogate: Surrogate, method: str) -> None:
    """Checks that interceptions by `models.hooks` reach the networks of a surrogate.

    They do in a `Classifier`, and in a `SteppedSurrogate` made of them. They need not in a function, which may have been
    compiled before, without them.

    Raises:
      InputError: They do not.
    """

    def reached(surrogate: Surrogate) -> bool:
        if isinstance(surrogate, SteppedSurrogate):
            return bool(surrogate.inner()) and all(map(reached, surrogate.inner()))
        return isinstance(surrogate, classifier_lib.Classifier)

    if not reached(surrogate):
        raise errors.InputError(
            f'{method} needs a Classifier, or surrogates made of them, got {type(surrogate).__name__}'
        )


@struct.dataclass
class _AnyNetwork(SteppedSurrogate):
    """Stands for one network of any kind, where only the number of gradients is asked for."""

    def inner(self) -> tuple[Surrogate, ...]:
        return (classifier_lib.Classifier({}, nn.Module(), num_classes=1),)

    def at_step(self, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
        raise NotImplementedError


class Arguments(NamedTuple):
    """The checked arguments of a call.

    Attributes:
      surrogate: A callable pytree.
      images: `[B, H, W, C]` in [0, 1].
      labels: Integers `[B]`.
      keys: Keys `[B]`.
      target_labels: Integers `[B]` of a targeted attack, else None.
      pool: Of an attack that needs one, else None.
    """

    surrogate: Surrogate
    images: jax.Array
    labels: jax.Array
    keys: jax.Array
    target_labels: jax.Array | None
    pool: transforms.Pool | None


class Attack(abc.ABC):
    """What all attacks are: `attack(surrogate, images, labels, key) -> adversarial images`.

    Subclasses are hashable values, such as frozen dataclasses: equal attacks share their compilations.

    Attributes:
      name: Name of the attack, for messages.
      limits: The budget, which the result is inside of.
      targeted: Whether the attack is called with target labels.
      needs_pool: Whether it must be called with a pool of images to mix in.
      chunk_size: How many copies or neighbors are computed together, at least 1.
    """

    name: str
    targeted: bool
    chunk_size: int

    if TYPE_CHECKING:  # read-only: fields in some subclasses, properties in others

        @property
        def limits(self) -> budget.Budget:
            """The budget."""

        @property
        def needs_pool(self) -> bool:
            """Whether it needs a pool."""

    @abc.abstractmethod
    def run(self, given: Arguments) -> jax.Array:
        """The adversarial images `[B, H, W, C]`; called once for each compilation, inside of jit."""

    @abc.abstractmethod
    def evaluations(self, surrogate: Surrogate) -> int:
        """Gradients of networks that the attack takes on a surrogate, for one example; forward passes do not count."""

    @property
    def gradient_evaluations(self) -> int:
        """Gradients of networks for one example, on a surrogate that is one network; see `evaluations` for others."""
        return self.evaluations(_AnyNetwork())

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

        Pure and jittable. Called outside of jit, it checks the values of its arguments and compiles itself, once for all
        surrogates of one architecture.

        Args:
          surrogate: Function from images in [0, 1] to logits `[B, K]`: a pytree such as `Classifier` or
            `jax.tree_util.Partial(apply_fn, variables)`, whose leaves may change without a new compilation; a plain
            function is compiled for itself. One that changes from step to step, such as a ghost network or a cycle of
            checkpoints, is a `SteppedSurrogate`. Logits `[M, B, K]` are those of an ensemble whose losses are averaged.
          images: Originals, float `[B, H, W, C]` in [0, 1].
          labels: True classes, int `[B]` in `[0, K)`.
          key: One key, which gives each example its own by position, or one key per example `[B]`, such as
            `attacks.example_keys` makes from ids.
          target_labels: Classes to reach, int `[B]` in `[0, K)`; for targeted attacks, and only for them.
          pool: Images and labels that transforms such as `admix` mix in: the same for every batch, so that the result does
            not depend on the batch.

        Returns:
          Adversarial images `[B, H, W, C]` inside the budget, of the type of `images`.

        Raises:
          InputError: Images outside [0, 1] or not finite, labels out of range, types or shapes that do not fit, or target
            labels or a pool missing. Under jit only what shapes and types show.
          RunError: The device ran out of memory.
        """
        images, labels = jnp.asarray(images), jnp.asarray(labels)
        if jax.tree_util.all_leaves([surrogate]):
            surrogate = jax.tree_util.Partial(surrogate)
        arguments.check_images(images)
        keys = arguments.keys_of_batch(key, len(images))
        shape = compiled_logits.eval_shape(surrogate, images, keys, 0)
        num_classes = arguments.num_classes(shape, len(images))
        arguments.check_labels(labels, len(images), num_classes)
        if self.targeted != (target_labels is not None):
            wanted = 'targeted: it needs' if self.targeted else 'not targeted: it takes no'
            raise errors.InputError(f'attack {self.name!r} is {wanted} target_labels')
        if target_labels is not None:
            target_labels = jnp.asarray(target_labels)
            arguments.check_labels(target_labels, len(images), num_classes)
        pool = arguments.checked_pool(self.name, pool, images) if self.needs_pool else None
        with arguments.memory_advice(self.name, len(images), self.chunk_size):
            adversarial: jax.Array = _run(self, Arguments(surrogate, images, labels, keys, target_labels, pool))
            return adversarial


@functools.partial(jax.jit, static_argnums=0)
def _run(attack: Attack, given: Arguments) -> jax.Array:
    return attack.run(given)
