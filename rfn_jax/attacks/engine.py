"""The engine: an attack is a composition of parts, compiled whole.

    x_0     = start(images)
    g_t     = gradient(grad_fn, x_t), where grad_fn is the gradient of the loss of surrogate(transforms(x))
    d_t     = direction(g_t)
    x_{t+1} = project(x_t + step_size * d_t)

Everything random is drawn with one key per example, so the adversarial image of an example does not depend on the batch.

Axes: `B` examples, `H W` rows and columns, `C` channels, `K` classes; images are floats in [0, 1].
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rfn_jax.attacks import budget, gradients, starts
from rfn_jax.core import errors, losses

Surrogate = Callable[..., jax.Array]
Loss = Callable[[jax.Array, jax.Array], jax.Array]
Transform = Callable[[jax.Array, jax.Array], jax.Array]
Start = Callable[[jax.Array, jax.Array, budget.Budget], jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """A gradient attack: `attack(surrogate, images, labels, key) -> adversarial images`.

    Two attacks made from the same parts share compilations only if the parts are the same objects; make an attack once
    and call it for every batch and every surrogate.

    Attributes:
      name: Name of the recipe, for messages.
      limits: The budget.
      direction: Optax transformation from the gradient (to ascend) to the direction of a step.
      step_size: Length of a step in the norm of the budget, above 0.
      steps: Number of steps, at least 1.
      loss: Function of logits `[B, K]` and labels `[B]` to the loss `[B]` that the attack maximises.
      gradient: How the gradient at an image is estimated.
      transforms: Functions of images and keys `[B]` to images, applied one after another before the surrogate; each may
        draw from its key, which is new at every step.
      start: Function of images, keys `[B]` and budget to the first images.

    Raises:
      InputError: A part is not of its kind, or `steps` or `step_size` is out of its range.

    Example:
      Adam's direction, on images with noise of their own at every step; parts that step downhill, such as `optax.sgd`,
      are not directions.

      >>> import jax, jax.numpy as jnp, optax
      >>> from rfn_jax import attacks
      >>> def noise(images, keys):
      ...     return images + 0.01 * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
      >>> attack = attacks.Attack(
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
    gradient: gradients.GradientEstimate = gradients.AT_IMAGE
    transforms: tuple[Transform, ...] = ()
    start: Start = starts.at_original

    def __post_init__(self):
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise errors.InputError(f'steps must be a whole number of at least 1, got {self.steps!r}')
        if callable(self.transforms) or not all(map(callable, self.transforms)):
            raise errors.InputError(f'transforms must be a tuple of functions, got {self.transforms!r}')
        object.__setattr__(self, 'transforms', tuple(self.transforms))  # a list could not be hashed
        if not hasattr(self.direction, 'init') or not hasattr(self.direction, 'update'):
            raise errors.InputError(f'direction must be one optax transformation, got {self.direction!r}')
        if isinstance(self.step_size, bool) or not isinstance(self.step_size, numbers.Real):
            raise errors.InputError(f'step_size must be a number, got {self.step_size!r}')
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise errors.InputError(f'step_size must be above 0 and finite, got {self.step_size!r}')

    @property
    def gradient_evaluations(self) -> int:
        """Gradients of the surrogate for one example."""
        return self.steps * self.gradient.evaluations

    def __call__(self, surrogate: Surrogate, images: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
        """Crafts adversarial images.

        Pure and jittable. Called outside of jit, it checks the values of its arguments and compiles itself, once for all
        surrogates of one architecture.

        Args:
          surrogate: Function from images in [0, 1] to logits `[B, K]`: a pytree such as `Classifier` or
            `jax.tree_util.Partial(apply_fn, variables)`, whose leaves may change without a new compilation; a plain
            function is compiled for itself. One that changes from step to step (an ensemble of checkpoints, a ghost
            network) has the attribute `varies_by_step = True`, and is called as `surrogate(images, keys=keys, step=t)`
            with one key per example, new at every step, and the number of the step, int32.
          images: Originals, float `[B, H, W, C]` in [0, 1].
          labels: True classes, int `[B]` in `[0, K)`.
          key: One key, which gives each example its own by position, or one key per example `[B]`, such as
            `rng.example_keys` makes from ids.

        Returns:
          Adversarial images `[B, H, W, C]` inside the budget, of the type of `images`.

        Raises:
          InputError: Images outside [0, 1] or not finite, labels out of range, or types or shapes that do not fit. Under
            jit only what shapes and types show.
        """
        images, labels = jnp.asarray(images), jnp.asarray(labels)
        if jax.tree_util.all_leaves([surrogate]):
            surrogate = jax.tree_util.Partial(surrogate)
        check_images(images)
        if not jnp.issubdtype(getattr(key, 'dtype', None), jax.dtypes.prng_key):
            raise errors.InputError(f'key must be made by jax.random.key, got {key!r}')
        keys = jax.random.split(key, len(images)) if key.ndim == 0 else key
        if keys.shape != images.shape[:1]:
            raise errors.InputError(
                f'key must be one key or one for each of the {len(images)} examples, got {key.shape}'
            )
        logits = _logits.eval_shape(surrogate, images, keys)
        if getattr(logits, 'shape', ())[:-1] != images.shape[:1]:
            raise errors.InputError(f'the surrogate must return logits [{len(images)}, K], got {logits}')
        check_labels(labels, len(images), logits.shape[-1])
        return _run(self, surrogate, images, labels, keys)


def check_images(images: jax.Array) -> None:
    """Checks that images are floats `[B, H, W, C]`, and in [0, 1] without NaN where the values are known.

    Raises:
      InputError: They are not.
    """
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise errors.InputError(
            f'images must be floats [B, H, W, C] in [0, 1], got {images.dtype} {images.shape}; divide uint8 images by 255'
        )
    if not len(images):
        raise errors.InputError('an attack needs at least one image, got none')
    if not isinstance(images, jax.core.Tracer):
        smallest, largest = float(jnp.min(images)), float(jnp.max(images))  # NaN if there is one
        if not (smallest >= 0 and largest <= 1):
            raise errors.InputError(
                f'images must be in [0, 1] without NaN, got values from {smallest:g} to {largest:g}; the normalisation '
                'belongs inside the model (Classifier)'
            )


def check_labels(labels: jax.Array, count: int, num_classes: int) -> None:
    """Checks that labels are integers `[count]`, and in `[0, num_classes)` where the values are known.

    Raises:
      InputError: They are not.
    """
    if labels.shape != (count,) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise errors.InputError(f'labels must be whole numbers [{count}], got {labels.dtype} {labels.shape}')
    if not isinstance(labels, jax.core.Tracer):
        values = np.asarray(labels)
        wrong = values[(values < 0) | (values >= num_classes)]
        if wrong.size:
            raise errors.InputError(
                f'labels must be in [0, {num_classes}), the classes of the surrogate, got {wrong[0]}'
            )


@jax.jit
def _logits(surrogate: Surrogate, images: jax.Array, keys: jax.Array, step: jax.typing.ArrayLike = 0) -> jax.Array:
    if getattr(surrogate, 'varies_by_step', False):
        return surrogate(images, keys=keys, step=step)
    return surrogate(images)


@functools.partial(jax.jit, static_argnums=0)
def _run(attack: Attack, surrogate: Surrogate, images: jax.Array, labels: jax.Array, keys: jax.Array) -> jax.Array:
    """The whole attack as one loop; `keys` has one key per example."""

    def loss_fn(t, x, step_keys):
        for index, transform in enumerate(attack.transforms):
            x = transform(x, _fold(step_keys, index))
        # The surrogate's keys follow those of the transforms.
        logits = _logits(surrogate, x, _fold(step_keys, len(attack.transforms)), t)
        return jnp.sum(attack.loss(logits, labels))

    def body(t, carry):
        x, estimate, state = carry
        # Key 0 of an example is for the start, key t + 1 for step t.
        step_keys = _fold(keys, t + 1)
        gradient, estimate = attack.gradient.update(jax.grad(functools.partial(loss_fn, t)), x, estimate, step_keys)
        direction, state = attack.direction.update(gradient, state, x)
        return attack.limits.project(x + attack.step_size * direction.astype(x.dtype), images), estimate, state

    first = attack.start(images, _fold(keys, 0), attack.limits)
    carry = (first, attack.gradient.init(images), attack.direction.init(images))
    return jax.lax.fori_loop(0, attack.steps, body, carry)[0]


def _fold(keys: jax.Array, number) -> jax.Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
