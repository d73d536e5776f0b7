"""Auto-PGD: projected gradient ascent with momentum that finds its step sizes, each example its own.

Axes: `B` examples, `H W` rows and columns, `C` channels, `K` classes, `M` members of an ensemble.
"""

import dataclasses
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from rfn_jax.attacks import attack, budget
from rfn_jax.attacks import keys as keys_lib
from rfn_jax.attacks.gradients import directions
from rfn_jax.core import checks, errors, losses, numerics

# The constants of the paper: share of a step that is new, and of steps that must be better for a step size to stay.
ALPHA = 0.75
RHO = 0.75
LOSSES = ('cross_entropy', 'dlr')

Tree = TypeVar('Tree')


def difference_of_logits_ratio(
    logits: jax.Array, labels: jax.Array, target_labels: jax.Array | None = None
) -> jax.Array:
    r"""The DLR loss of each example, which knows neither the scale nor the shift of the logits.

    .. math::
        -\frac{z_y - \max_{i \neq y} z_i}{z_{\pi_1} - z_{\pi_3} + 10^{-12}} \qquad \text{or, with target t,} \qquad
        -\frac{z_y - z_t}{z_{\pi_1} - (z_{\pi_3} + z_{\pi_4}) / 2 + 10^{-12}}

    where :math:`\pi` sorts the logits from the largest. Without a target it is above 0 where the example is misclassified.

    Args:
      logits: Array `[B, K]`, K at least 3, or 4 with targets.
      labels: Integers `[B]` in `[0, K)`.
      target_labels: Integers `[B]` in `[0, K)`.

    Returns:
      Array `[B]`, float32.

    Raises:
      InputError: There are too few classes.

    References:
      Croce and Hein, `Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks
      <https://arxiv.org/abs/2003.01690>`_, 2020.
    """
    needed = 3 if target_labels is None else 4
    if logits.shape[-1] < needed:
        raise errors.InputError(f'this DLR loss needs at least {needed} classes, got logits {list(logits.shape)}')
    largest = jax.lax.top_k(logits.astype(jnp.float32), needed)[0]
    scale = largest[:, 0] - jnp.mean(largest[:, 2:], axis=-1) + 1e-12
    if target_labels is None:
        return losses.margin(logits, labels) / scale
    return (losses.negative_logit(logits, labels) - losses.negative_logit(logits, target_labels)) / scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoPgd(attack.Attack):
    """The attack that `apgd` makes.

    Attributes:
      limits: The budget.
      steps: Number of steps, at least 1.
      loss: `'cross_entropy'` or `'dlr'`.
      restarts: Number of runs from random starts of their own, at least 1.
      targeted: Whether the attack is called with target labels.
      name: Name of the attack, for messages.
      chunk_size: Has no effect, as there are no copies.

    Raises:
      InputError: A value is out of its range.
    """

    limits: budget.Budget
    steps: int = 100
    loss: str = 'cross_entropy'
    restarts: int = 1
    targeted: bool = False
    name: str = 'apgd'
    chunk_size: int = 1

    needs_pool = False

    def __post_init__(self) -> None:
        for name in ('steps', 'restarts'):
            object.__setattr__(self, name, checks.integer(name, getattr(self, name), at_least=1))
        checks.one_of('loss', self.loss, LOSSES)

    def evaluations(self, surrogate: attack.Surrogate) -> int:
        """Gradients of networks for one example, in all runs."""
        return self.restarts * self.steps * attack.evaluations(surrogate)

    def run(self, given: attack.Arguments) -> jax.Array:
        """The adversarial images `[B, H, W, C]`: all runs, one after another."""
        return _run(self, given)


def apgd(
    *,
    eps: float = 4 / 255,
    norm: str = 'linf',
    steps: int = 100,
    loss: str = 'cross_entropy',
    restarts: int = 1,
    targeted: bool = False,
) -> AutoPgd:
    r"""Auto-PGD (APGD): ascent with momentum from a random start, whose step sizes follow the progress of each example.

    .. math::
        z_{k+1} = P(x_k + \eta_k d(\nabla L(x_k))), \qquad
        x_{k+1} = P(x_k + \alpha (z_{k+1} - x_k) + (1 - \alpha)(x_k - x_{k-1}))

    with P the projection on the budget, d the direction of steepest ascent and :math:`\alpha = 0.75` (1 in the first step).
    The step size starts at 2 eps. At checkpoints :math:`w_j = \lceil p_j N \rceil` of the N steps, :math:`p_1 = 0.22` and
    :math:`p_{j+1} - p_j = max(p_j - p_{j-1} - 0.03, 0.06)`, it is halved, and the ascent goes on from the best point so far,
    if the loss rose in at most 0.75 of the steps since the last checkpoint, or if neither the step size nor the best loss
    has changed since then.

    Of all points that were visited, in all runs, the result is the one with the largest loss among those that fool the
    surrogate, or among all if none does: that are misclassified, or classified as the target. Of an ensemble, the most
    members count.

    Args:
      eps: Radius of the budget.
      norm: `'linf'` or `'l2'`.
      steps: Number of steps N, at least 1.
      loss: `'cross_entropy'`, or `'dlr'`, the difference of logits ratio, for at least 3 classes (4 if targeted).
      restarts: Number of runs from random starts of their own, at least 1.
      targeted: Whether the attack is called with target labels.

    Returns:
      The attack.

    Raises:
      InputError: A value is out of its range.

    References:
      Croce and Hein, `Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks
      <https://arxiv.org/abs/2003.01690>`_, 2020. "At most 0.75", and comparing the first loss after a restart from the best
      point with the last one before it, are as in their code.
    """
    return AutoPgd(limits=budget.Budget(eps, norm), steps=steps, loss=loss, restarts=restarts, targeted=targeted)


def checkpoints(steps: int) -> tuple[int, ...]:
    """The numbers of steps after which step sizes are reconsidered: w_1, w_2, ... below `steps`."""
    found, share, period = [], 22, 22  # in hundredths, so that no rounding moves a checkpoint
    while share < 100:
        found.append(-(-share * steps // 100))
        period = max(period - 3, 6)
        share += period
    return tuple(sorted({number for number in found if number < steps}))


class _Found(NamedTuple):
    """The best image of each example, the number of members it fools, and its loss."""

    images: jax.Array
    fooled: jax.Array
    loss: jax.Array


class _Best(NamedTuple):
    """The image of the largest loss of each example in a run, with its gradient and loss."""

    images: jax.Array
    gradient: jax.Array
    loss: jax.Array


class _Ascent(NamedTuple):
    """One run: images `[B, H, W, C]` of this step and of the one before, the best so far, and values `[B]`."""

    images: jax.Array
    previous: jax.Array
    best: _Best
    step_size: jax.Array
    last_loss: jax.Array
    rises: jax.Array
    checked_loss: jax.Array
    was_halved: jax.Array
    found: _Found


def _where(chosen: jax.Array, a: Tree, b: Tree) -> Tree:
    """`a` for the chosen examples `[B]`, else `b`; pytrees of arrays `[B, ...]`."""
    result: Tree = jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), a, b)
    return result


def _random_start(images: jax.Array, keys: jax.Array, limits: budget.Budget) -> jax.Array:
    """Noise scaled to the border of the budget: uniform for `'linf'`, normal for `'l2'`."""
    if limits.norm == 'linf':
        noise = keys_lib.uniform(keys, images, 1.0)
        size = jnp.max(jnp.abs(noise), axis=(1, 2, 3), keepdims=True)
    else:
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
        size = numerics.batch_norm_l2(noise)
    return limits.project(images + limits.eps * numerics.safe_divide(noise, size), images)


def _run(auto: AutoPgd, given: attack.Arguments) -> jax.Array:
    surrogate, images, labels, keys, target_labels, _ = given
    limits = auto.limits
    turns = checkpoints(auto.steps)
    is_turn = np.isin(np.arange(auto.steps), turns)
    enough = np.zeros(auto.steps, np.float32)
    enough[list(turns)] = RHO * np.diff((0, *turns))

    def loss_of(logits: jax.Array) -> jax.Array:
        if auto.loss == 'dlr':
            return difference_of_logits_ratio(logits, labels, target_labels)
        if target_labels is None:
            return losses.cross_entropy(logits, labels)
        return -losses.cross_entropy(logits, target_labels)

    def evaluate(
        x: jax.Array, keys: jax.Array, number: jax.Array | int
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """The sum of the losses; and those `[B]`, with the number of members that are fooled."""
        logits = attack.compiled_logits(surrogate, x, keys, number)
        members = logits if logits.ndim == 3 else logits[None]
        loss = jnp.mean(jax.vmap(loss_of)(members), axis=0)
        classes = jnp.argmax(members, axis=-1)
        fooled = classes != labels if target_labels is None else classes == target_labels
        return jnp.sum(loss), (loss, jnp.sum(fooled, axis=0, dtype=jnp.int32))

    def better(found: _Found, x: jax.Array, fooled: jax.Array, loss: jax.Array) -> _Found:
        is_better = (fooled > found.fooled) | ((fooled == found.fooled) & (loss > found.loss))
        return _where(is_better, _Found(x, fooled, loss), found)

    def run(found: _Found, keys: jax.Array) -> _Found:
        def body(number: jax.Array, now: _Ascent) -> _Ascent:
            (_, (loss, fooled)), gradient = jax.value_and_grad(evaluate, has_aux=True)(
                now.images, keys_lib.fold(keys, number + 1), number
            )
            found = better(now.found, now.images, fooled, loss)
            best = _where(loss > now.best.loss, _Best(now.images, gradient, loss), now.best)
            rises = now.rises + (loss > now.last_loss)

            turn = jnp.asarray(is_turn)[number]
            stuck = ~now.was_halved & (now.checked_loss >= best.loss)
            halve = turn & ((rises <= jnp.asarray(enough)[number]) | stuck)
            step_size = _where(halve, now.step_size / 2, now.step_size)
            x, gradient = _where(halve, (best.images, best.gradient), (now.images, gradient))

            direction = directions.steepest(limits.norm).update(gradient, ())[0]
            ahead = limits.project(x + (step_size[:, None, None, None] * direction).astype(x.dtype), images)
            share = jnp.where(number == 0, 1.0, ALPHA).astype(x.dtype)
            return _Ascent(
                images=limits.project(x + share * (ahead - x) + (1 - share) * (x - now.previous), images),
                previous=x,
                best=best,
                step_size=step_size,
                last_loss=loss,
                rises=jnp.where(turn, 0, rises),
                checked_loss=jnp.where(turn, best.loss, now.checked_loss),
                was_halved=jnp.where(turn, halve, now.was_halved),
                found=found,
            )

        first = _random_start(images, keys_lib.fold(keys, 0), limits)
        nothing = jnp.full(len(images), -jnp.inf, jnp.float32)
        start = _Ascent(
            images=first,
            previous=first,
            best=_Best(first, jnp.zeros_like(first), nothing),
            step_size=jnp.full(len(images), 2 * limits.eps, jnp.float32),
            last_loss=-nothing,
            rises=jnp.zeros(len(images), jnp.int32),
            checked_loss=nothing,
            was_halved=jnp.ones(len(images), bool),
            found=found,
        )
        last = jax.lax.fori_loop(0, auto.steps, body, start)
        _, (loss, fooled) = evaluate(last.images, keys_lib.fold(keys, auto.steps + 1), auto.steps - 1)
        return better(last.found, last.images, fooled, loss)

    none = _Found(images, jnp.full(len(images), -1, jnp.int32), jnp.full(len(images), -jnp.inf, jnp.float32))
    found: _Found = jax.lax.fori_loop(0, auto.restarts, lambda r, found: run(found, keys_lib.fold(keys, r)), none)
    return found.images
