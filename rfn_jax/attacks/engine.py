"""The engine: an attack is composed of parts and compiled as a whole.

    x_0     = start(images)
    g_t     = gradient(grad_fn, x_t), where grad_fn is the gradient of the loss of surrogate(transforms(x)), averaged over
              the copies that the transforms produce
    d_t     = direction(g_t)
    x_{t+1} = project(x_t + step_size * d_t)

All random numbers are drawn with one key per example, so the adversarial image of an example does not depend on the batch.

Axes: `B` examples, `H W` rows and columns, `C` channels, `K` classes, `M` members of an ensemble; images are floats in
[0, 1].
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from rfn_jax.attacks import attack as attack_lib
from rfn_jax.attacks import budget, starts
from rfn_jax.attacks import keys as keys_lib
from rfn_jax.attacks.gradients import estimate
from rfn_jax.attacks.inputs import copies
from rfn_jax.attacks.inputs import transforms as transforms_lib
from rfn_jax.core import checks, errors, losses

Loss = Callable[[jax.Array, jax.Array], jax.Array]
Transform = transforms_lib.InputTransform | Callable[[jax.Array, jax.Array], jax.Array]
SurrogateTransform = Callable[[attack_lib.Surrogate], attack_lib.Surrogate]
Start = Callable[[jax.Array, jax.Array, budget.Budget], jax.Array]
Carry = tuple[jax.Array, estimate.State, optax.OptState]  # images, state of the estimate, state of the direction


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientAttack(attack_lib.Attack):
    """An `Attack` that takes steps along the gradient and is composed of parts.

    Two attacks made from equal parts share compilations only if the parts are the same objects, so make an attack once and
    call it for every batch and every surrogate.

    Attributes:
      name: Name of the attack, for messages.
      limits: The budget.
      direction: Optax transformation that turns the gradient (to ascend) into the direction of a step.
      step_size: Length of a step in the norm of the budget, above 0.
      steps: Number of steps, at least 1.
      loss: Function from logits `[B, K]` and labels `[B]` to the loss `[B]` that the attack maximizes.
      gradient: How the gradient at an image is estimated.
      transforms: Applied one after another, before the surrogate. Each is either a function from images and keys `[B]` to
        images, which may draw random numbers from the keys (they are new at every step), or an `InputTransform`, which may
        also produce several copies. The gradient is averaged over all combinations of copies.
      surrogate_transforms: Functions from a surrogate to another one, such as `skip_gradient(0.2)`; applied in order.
      start: Function from images, keys `[B]` and budget to the first images.
      restarts: Number of runs, each from its own start, at least 1; for each example, the run with the largest loss is kept.
      targeted: Whether the attack is called with target labels, and minimizes the loss with respect to them.
      chunk_size: How many copies or neighbors are computed together, at least 1. Larger values are faster if the accelerator
        has enough memory; they take that many times the memory of a batch (the square of it if there are both copies and
        neighbors).

    Raises:
      InputError: A part has the wrong type, or a number is out of range.

    Example:
      This attack follows the direction of Adam, on images with new noise at every step. Transformations that step downhill,
      such as `optax.sgd`, are not directions.

      >>> import jax, jax.numpy as jnp, optax
      >>> from rfn_jax import attacks
      >>> def noise(images, keys):
      ...     return images + 0.01 * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
      >>> attack = attacks.GradientAttack(
      ...     name='adam',
      ...     limits=attacks.Budget(eps=8 / 255),
      ...     direction=optax.chain(optax.scale_by_adam(), attacks.steepest('linf')),
      ...     step_size=1 / 255,
      ...     steps=10,
      ...     transforms=(noise,),
      ... )
      >>> surrogate = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, jnp.eye(4))
      >>> images, labels = jnp.full((2, 2, 2, 1), 0.5), jnp.array([0, 3])
      >>> adversarial = attack(surrogate, images, labels, jax.random.key(0))
      >>> bool(jnp.max(jnp.abs(adversarial - images)) <= 8 / 255 + 1e-6)
      True
    """

    name: str
    limits: budget.Budget
    direction: optax.GradientTransformation
    step_size: float
    steps: int
    loss: Loss = losses.cross_entropy
    gradient: estimate.GradientEstimate = estimate.AT_IMAGE
    transforms: tuple[Transform, ...] = ()
    surrogate_transforms: tuple[SurrogateTransform, ...] = ()
    start: Start = starts.at_original
    restarts: int = 1
    targeted: bool = False
    chunk_size: int = 1

    def __post_init__(self) -> None:
        for name in ('steps', 'restarts', 'chunk_size'):
            object.__setattr__(self, name, checks.integer(name, getattr(self, name), at_least=1))
        checks.number('step_size', self.step_size, above=0)
        for name in ('transforms', 'surrogate_transforms'):
            parts = getattr(self, name)
            if isinstance(parts, transforms_lib.InputTransform) or not isinstance(parts, (tuple, list)):
                raise errors.InputTypeError(f'{name} must be a tuple of functions, got {parts!r}')
            object.__setattr__(self, name, tuple(parts))  # lists cannot be hashed
        object.__setattr__(self, 'transforms', tuple(map(transforms_lib.as_transform, self.transforms)))
        requirements = (
            ('limits', isinstance(self.limits, budget.Budget), 'a Budget'),
            ('gradient', isinstance(self.gradient, estimate.GradientEstimate), 'a GradientEstimate'),
            ('loss', callable(self.loss), 'a function'),
            ('start', callable(self.start), 'a function'),
            ('surrogate_transforms', all(map(callable, self.surrogate_transforms)), 'a tuple of functions'),
            (
                'direction',
                hasattr(self.direction, 'init') and hasattr(self.direction, 'update'),
                'one optax transformation',
            ),
        )
        for name, is_met, requirement in requirements:
            if not is_met:
                raise errors.InputTypeError(f'{name} must be {requirement}, got {getattr(self, name)!r}')

    @property
    def needs_pool(self) -> bool:
        """Whether the attack must be called with a pool of images to mix in."""
        return any(transform.needs_pool for transform in self._transforms)

    @property
    def copies(self) -> int:
        """Number of copies over which each gradient is averaged: all combinations of the copies of the transforms."""
        return math.prod(transform.copies for transform in self._transforms)

    @property
    def _transforms(self) -> tuple[transforms_lib.InputTransform, ...]:
        return tuple(map(transforms_lib.as_transform, self.transforms))

    def transform_surrogate(self, surrogate: attack_lib.Surrogate) -> attack_lib.Surrogate:
        """Applies all surrogate transforms to a surrogate; the gradients are those of the result."""
        return functools.reduce(lambda inner, transform: transform(inner), self.surrogate_transforms, surrogate)

    def evaluations(self, surrogate: attack_lib.Surrogate) -> int:
        """Number of network gradients per example, over all restarts and including the surrogate transforms."""
        surrogate_gradients = self.restarts * self.copies * self.gradient.evaluations(self.steps)
        return surrogate_gradients * attack_lib.evaluations(self.transform_surrogate(surrogate))

    def run(self, arguments: attack_lib.Arguments) -> jax.Array:
        """Returns the adversarial images `[B, H, W, C]`; the whole attack is one loop."""
        surrogate, images, labels, keys, target_labels, pool = arguments
        surrogate = self.transform_surrogate(surrogate)

        def mean_over(count: int, compute: Callable[[jax.Array], copies.Tree]) -> copies.Tree:
            return copies.mean_over(count, compute, chunk_size=self.chunk_size)

        def compute_losses(logits: jax.Array) -> jax.Array:
            """Returns the loss `[B]` to maximize; logits `[M, B, K]` of an ensemble give the mean over its members."""
            if logits.ndim == 3:
                return jnp.mean(jax.vmap(compute_losses)(logits), axis=0)
            return self.loss(logits, labels) if target_labels is None else -self.loss(logits, target_labels)

        def loss_fn(t: jax.Array, x: jax.Array, step_keys: jax.Array, number: jax.Array) -> jax.Array:
            copy_keys = step_keys if self.copies == 1 else keys_lib.fold(step_keys, keys_lib.COPIES + number)
            for index, transform in enumerate(self._transforms):
                number, copy = jnp.divmod(number, transform.copies)
                own_keys, shared_keys = (
                    keys_lib.fold(copy_keys, index),
                    keys_lib.fold(step_keys, keys_lib.SHARED + index),
                )
                x = transform.apply(transforms_lib.Input(x, labels, own_keys, shared_keys, copy, pool))
            surrogate_keys = keys_lib.fold(copy_keys, len(self.transforms))
            return jnp.sum(compute_losses(attack_lib.compiled_logits(surrogate, x, surrogate_keys, t)))

        def ascend(keys: jax.Array) -> jax.Array:
            def body(t: jax.Array, carry: Carry) -> Carry:
                x, estimate_state, state = carry
                step_keys = keys_lib.fold(keys, t + 1)

                def grad_fn(x: jax.Array, keys: jax.Array) -> jax.Array:
                    def copy_gradient(number: jax.Array) -> jax.Array:
                        gradient: jax.Array = jax.grad(loss_fn, argnums=1)(t, x, keys, number)
                        return gradient

                    return mean_over(self.copies, copy_gradient)

                step = estimate.Step(t, images, state, mean_over)
                gradient, estimate_state = self.gradient.update(grad_fn, x, estimate_state, step_keys, step)
                direction, state = self.direction.update(gradient, state, x)
                moved = x + self.step_size * direction.astype(x.dtype)
                return self.limits.project(moved, images), estimate_state, state

            first = self.start(images, keys_lib.fold(keys, 0), self.limits)
            carry = (first, self.gradient.init(images), self.direction.init(images))
            last: Carry = jax.lax.fori_loop(0, self.steps, body, carry)
            return last[0]

        if self.restarts == 1:
            return ascend(keys)

        def final_losses(x: jax.Array) -> jax.Array:
            # All restarts use the same key, so that a surrogate that varies is the same network for all of them.
            last_keys = keys_lib.fold(keys, self.steps + 1)
            return compute_losses(attack_lib.compiled_logits(surrogate, x, last_keys, self.steps - 1))

        def restart(number: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            best, best_loss = carry
            candidate = ascend(keys_lib.fold(keys, self.steps + 1 + number))
            loss = final_losses(candidate)
            is_better = loss > best_loss
            return jnp.where(is_better[:, None, None, None], candidate, best), jnp.where(is_better, loss, best_loss)

        minus_infinity = jnp.full(len(images), -jnp.inf, jax.eval_shape(final_losses, images).dtype)
        best: jax.Array = jax.lax.fori_loop(0, self.restarts, restart, (images, minus_infinity))[0]
        return best
