"""Auto-PGD: projected gradient ascent with momentum that finds a step size for each example by itself.

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

# The paper's constants: the weight of the new step against the momentum, and the share of steps that must raise the loss for
# a step size to be kept.
ALPHA = 0.75
RHO = 0.75
LOSSES = ('cross_entropy', 'dlr')

Tree = TypeVar('Tree')


def difference_of_logits_ratio(
    logits: jax.Array, labels: jax.Array, target_labels: jax.Array | None = None
) -> jax.Array:
    r"""The DLR loss of each example, which does not depend on the scale of the logits or on a shift of them.

    .. math::
        -\frac{z_y - \max_{i \neq y} z_i}{z_{\pi_1} - z_{\pi_3} + 10^{-12}} \qquad \text{or, with target t,} \qquad
        -\frac{z_y - z_t}{z_{\pi_1} - (z_{\pi_3} + z_{\pi_4}) / 2 + 10^{-12}}

    where :math:`\pi` sorts the logits in descending order. Without a target, the loss is above 0 if the example is
    misclassified.

    Args:
      logits: Array `[B, K]`, with K at least 3, or at least 4 with targets.
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
    """The attack that `apgd` returns.

    Attributes:
      limits: The budget.
      steps: Number of steps, at least 1.
      loss: `'cross_entropy'` or `'dlr'`.
      restarts: Number of runs, each from its own random start, at least 1.
      targeted: Whether the attack is called with target labels.
      name: Name of the attack, for messages.
      chunk_size: Has no effect, since there are no copies.

    Raises:
      InputError: A value is out of range.
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
        """Number of network gradients per example, over all runs."""
        return self.restarts * self.steps * attack.evaluations(surrogate)

    def run(self, arguments: attack.Arguments) -> jax.Array:
        """Returns the adversarial images `[B, H, W, C]`; the runs follow one another."""
        return _run(self, arguments)


def apgd(
    *,
    eps: float = 4 / 255,
    norm: str = 'linf',
    steps: int = 100,
    loss: str = 'cross_entropy',
    restarts: int = 1,
    targeted: bool = False,
) -> AutoPgd:
    r"""Auto-PGD (APGD): ascent with momentum from a random start, with step sizes adapted to the progress of each example.

    .. math::
        z_{k+1} = P(x_k + \eta_k d(\nabla L(x_k))), \qquad
        x_{k+1} = P(x_k + \alpha (z_{k+1} - x_k) + (1 - \alpha)(x_k - x_{k-1}))

    where P is the projection onto the budget, d the direction of steepest ascent and :math:`\alpha = 0.75` (1 in the first
    step). The step size starts at 2 eps. It is reconsidered at the checkpoints :math:`w_j = \lceil p_j N \rceil` of the N
    steps, with :math:`p_1 = 0.22` and :math:`p_{j+1} - p_j = max(p_j - p_{j-1} - 0.03, 0.06)`: if the loss rose in at most
    0.75 of the steps since the last checkpoint, or if neither the step size nor the best loss has changed since then, the
    step size is halved and the ascent continues from the best point so far.

    The result is chosen among all points visited in all runs: it is the point with the largest loss among those that fool
    the surrogate, or among all points if none does. A point fools the surrogate if it is misclassified, or, with a target,
    classified as the target. With an ensemble, points that fool more members come first.

    Args:
      eps: Radius of the budget.
      norm: `'linf'` or `'l2'`.
      steps: Number of steps N, at least 1.
      loss: `'cross_entropy'`, or `'dlr'`, the difference of logits ratio, for at least 3 classes (4 if targeted).
      restarts: Number of runs, each from its own random start, at least 1.
      targeted: Whether the attack is called with target labels.

    Returns:
      The attack.

    Raises:
      InputError: A value is out of range.

    References:
      Croce and Hein, `Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks
      <https://arxiv.org/abs/2003.01690>`_, 2020. Two details follow their code: "at most 0.75", and that the first loss after
      a restart from the best point is compared with the last loss before it.
    """
    return AutoPgd(limits=budget.Budget(eps, norm), steps=steps, loss=loss, restarts=restarts, targeted=targeted)


def checkpoints(steps: int) -> tuple[int, ...]:
    """The numbers of steps after which the step sizes are reconsidered: w_1, w_2, ... below `steps`."""
    numbers, share, period = [], 22, 22  # in hundredths, so that rounding moves no checkpoint
    while share < 100:
        numbers.append(-(-share * steps // 100))
        period = max(period - 3, 6)
        share += period
    return tuple(sorted({number for number in numbers if number < steps}))


class _BestOverall(NamedTuple):
    """The best image of each example over all runs, the number of members that it fools, and its loss."""

    images: jax.Array
    fooled: jax.Array
    loss: jax.Array


class _BestInRun(NamedTuple):
    """The image with the largest loss of each example in one run, with its gradient and loss."""

    images: jax.Array
    gradient: jax.Array
    loss: jax.Array


class _Ascent(NamedTuple):
    """State of one run: images `[B, H, W, C]` of this step and of the previous one, the best so far, and values `[B]`."""

    images: jax.Array
    previous: jax.Array
    best: _BestInRun
    step_size: jax.Array
    last_loss: jax.Array
    rises: jax.Array
    checked_loss: jax.Array
    was_halved: jax.Array
    overall: _BestOverall


def _where(chosen: jax.Array, a: Tree, b: Tree) -> Tree:
    """`a` for the chosen examples `[B]`, otherwise `b`; both are pytrees of arrays `[B, ...]`."""
    result: Tree = jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), a, b)
    return result


def _random_start(images: jax.Array, keys: jax.Array, limits: budget.Budget) -> jax.Array:
    """The images plus noise scaled to the boundary of the budget: uniform for `'linf'`, normal for `'l2'`."""
    if limits.norm == 'linf':
        noise = keys_lib.uniform(keys, images, 1.0)
        size = jnp.max(jnp.abs(noise), axis=(1, 2, 3), keepdims=True)
    else:
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
        size = numerics.batch_norm_l2(noise)
    return limits.project(images + limits.eps * numerics.safe_divide(noise, size), images)


def _run(settings: AutoPgd, arguments: attack.Arguments) -> jax.Array:
    surrogate, images, labels, keys, target_labels, _ = arguments
    limits = settings.limits
    numbers = checkpoints(settings.steps)
    is_checkpoint = np.isin(np.arange(settings.steps), numbers)
    required_rises = np.zeros(settings.steps, np.float32)
    required_rises[list(numbers)] = RHO * np.diff((0, *numbers))

    def compute_loss(logits: jax.Array) -> jax.Array:
        if settings.loss == 'dlr':
            return difference_of_logits_ratio(logits, labels, target_labels)
        if target_labels is None:
            return losses.cross_entropy(logits, labels)
        return -losses.cross_entropy(logits, target_labels)

    def evaluate(
        x: jax.Array, keys: jax.Array, number: jax.Array | int
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Returns the sum of the losses; and the losses `[B]` with the numbers of fooled members."""
        logits = attack.compiled_logits(surrogate, x, keys, number)
        members = logits if logits.ndim == 3 else logits[None]
        loss = jnp.mean(jax.vmap(compute_loss)(members), axis=0)
        classes = jnp.argmax(members, axis=-1)
        fooled = classes != labels if target_labels is None else classes == target_labels
        return jnp.sum(loss), (loss, jnp.sum(fooled, axis=0, dtype=jnp.int32))

    def update_best(overall: _BestOverall, x: jax.Array, fooled: jax.Array, loss: jax.Array) -> _BestOverall:
        is_better = (fooled > overall.fooled) | ((fooled == overall.fooled) & (loss > overall.loss))
        return _where(is_better, _BestOverall(x, fooled, loss), overall)

    def run(overall: _BestOverall, keys: jax.Array) -> _BestOverall:
        def step(number: jax.Array, state: _Ascent) -> _Ascent:
            (_, (loss, fooled)), gradient = jax.value_and_grad(evaluate, has_aux=True)(
                state.images, keys_lib.fold(keys, number + 1), number
            )
            overall = update_best(state.overall, state.images, fooled, loss)
            best = _where(loss > state.best.loss, _BestInRun(state.images, gradient, loss), state.best)
            rises = state.rises + (loss > state.last_loss)

            at_checkpoint = jnp.asarray(is_checkpoint)[number]
            is_stuck = ~state.was_halved & (state.checked_loss >= best.loss)
            halve = at_checkpoint & ((rises <= jnp.asarray(required_rises)[number]) | is_stuck)
            step_size = _where(halve, state.step_size / 2, state.step_size)
            x, gradient = _where(halve, (best.images, best.gradient), (state.images, gradient))

            direction = directions.steepest(limits.norm).update(gradient, ())[0]
            ahead = limits.project(x + (step_size[:, None, None, None] * direction).astype(x.dtype), images)
            share = jnp.where(number == 0, 1.0, ALPHA).astype(x.dtype)
            return _Ascent(
                images=limits.project(x + share * (ahead - x) + (1 - share) * (x - state.previous), images),
                previous=x,
                best=best,
                step_size=step_size,
                last_loss=loss,
                rises=jnp.where(at_checkpoint, 0, rises),
                checked_loss=jnp.where(at_checkpoint, best.loss, state.checked_loss),
                was_halved=jnp.where(at_checkpoint, halve, state.was_halved),
                overall=overall,
            )

        first = _random_start(images, keys_lib.fold(keys, 0), limits)
        minus_infinity = jnp.full(len(images), -jnp.inf, jnp.float32)
        start = _Ascent(
            images=first,
            previous=first,
            best=_BestInRun(first, jnp.zeros_like(first), minus_infinity),
            step_size=jnp.full(len(images), 2 * limits.eps, jnp.float32),
            last_loss=-minus_infinity,
            rises=jnp.zeros(len(images), jnp.int32),
            checked_loss=minus_infinity,
            was_halved=jnp.ones(len(images), bool),
            overall=overall,
        )
        last = jax.lax.fori_loop(0, settings.steps, step, start)
        _, (loss, fooled) = evaluate(last.images, keys_lib.fold(keys, settings.steps + 1), settings.steps - 1)
        return update_best(last.overall, last.images, fooled, loss)

    initial = _BestOverall(images, jnp.full(len(images), -1, jnp.int32), jnp.full(len(images), -jnp.inf, jnp.float32))
    overall: _BestOverall = jax.lax.fori_loop(
        0, settings.restarts, lambda r, overall: run(overall, keys_lib.fold(keys, r)), initial
    )
    return overall.images
