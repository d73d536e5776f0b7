"""The loss of one set of examples as a function of the parameters, with its gradient, in one piece or in micro-batches.

Axes: `B` examples of the set, `b` of a micro-batch.
"""

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from rfn_jax import optim
from rfn_jax.core import errors, losses


class Evaluation(NamedTuple):
    """What one evaluation of the loss gives beside the gradient.

    Attributes:
      losses: Loss of each example, `[B]`.
      accuracy: Share of the examples that are predicted correctly.
      batch_stats: Running statistics after it.
    """

    losses: jax.Array
    accuracy: jax.Array
    batch_stats: Any


class Objective(NamedTuple):
    """The mean loss of a set of examples.

    Attributes:
      value_and_grad: From parameters to `(Evaluation, gradient)`.
      grad: From parameters, and perhaps the positions int32 `[k]` of some of the examples, to the gradient of their mean
        loss.
      losses: From parameters to the losses `[B]`.
    """

    value_and_grad: Callable[[optax.Params], tuple[Evaluation, optax.Updates]]
    grad: Callable[..., optax.Updates]
    losses: Callable[[optax.Params], jax.Array]


def objective(
    module: nn.Module,
    batch_stats: Any,
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array | None = None,
    *,
    train: bool = True,
    micro_batch_size: int | None = None,
    gather: Callable[[Any], Any] = lambda params: params,
    spread: Callable[[Any], Any] = lambda examples: examples,
) -> Objective:
    """The objective of a network on some examples, as it is trained or as it is evaluated.

    In training mode batch normalization uses the statistics of the examples and dropout is on; in evaluation mode
    normalization uses the running statistics, dropout is off, and auxiliary heads do not count.

    The loss is the cross-entropy, and for each auxiliary head of the network (`sow`n in `'auxiliary_logits'`) the
    cross-entropy of its logits times the `auxiliary_weight` of the module. Dropout is drawn from one key in every
    evaluation of all examples, so that a sharpness-aware minimizer compares gradients of one function; the gradient of
    some of them (`optim.esam`) has masks of its own.

    With micro-batches the gradient is summed over them one after another, which bounds the memory. Batch normalization
    then sees one micro-batch at a time, and the running statistics move once, by the mean of what each would do.

    Args:
      module: Flax module.
      batch_stats: Running statistics before.
      images: Normalized images `[B, H, W, C]`.
      labels: int32 `[B]`.
      key: Key of dropout, for the modules that have it in training mode; each micro-batch folds in its number.
      train: Whether in training mode.
      micro_batch_size: b, a divisor of the number of examples wherever they are more; None for one piece. Micro-batch i holds
        the examples i, i + B/b, i + 2B/b, ..., so that each device has its share of every one where b is a multiple of the
        number of devices.
      gather: What is done to the parameters before each evaluation: where they are cut over devices, their placement.
      spread: What is done to some of the examples before their gradient is taken: their placement.

    Returns:
      The `Objective`. In training mode it uses the statistics of the examples whatever the parameters, and in evaluation
      mode it leaves the running ones alone.

    Raises:
      InputError: At an evaluation, b does not divide the examples.
    """

    def mean_loss(params, images, labels, key):
        logits, updated = module.apply(
            {'params': gather(params), 'batch_stats': batch_stats},
            images,
            train=train,
            mutable=['batch_stats', 'auxiliary_logits'] if train else [],
            rngs={} if key is None else {'dropout': key},
        )
        values = losses.cross_entropy(logits, labels)
        for auxiliary in jax.tree.leaves(updated.get('auxiliary_logits', {})):
            values += module.auxiliary_weight * losses.cross_entropy(auxiliary, labels)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == labels)
        return jnp.mean(values), Evaluation(values, accuracy, updated.get('batch_stats', {}))

    def value_and_grad(params, images=images, labels=labels):
        evaluation, gradient = in_pieces(params, images, labels)
        return evaluation if train else evaluation._replace(batch_stats=batch_stats), gradient

    def in_pieces(params, images, labels):
        gradient_of = jax.value_and_grad(mean_loss, has_aux=True)
        pieces = _pieces(len(labels), micro_batch_size)
        if pieces == 1:
            (_, evaluation), gradient = gradient_of(params, images, labels, key)
            return evaluation, gradient

        def body(total, piece):
            *examples, number = piece
            (_, evaluation), gradient = gradient_of(
                params, *examples, None if key is None else jax.random.fold_in(key, number)
            )
            rest = (gradient, evaluation.accuracy, evaluation.batch_stats)
            return jax.tree.map(jnp.add, total, rest), evaluation.losses

        parts = [x.reshape(-1, pieces, *x.shape[1:]).swapaxes(0, 1) for x in (images, labels)]
        shapes = jax.eval_shape(gradient_of, params, *(part[0] for part in parts), key)
        (_, evaluation), gradient = shapes
        total = (gradient, evaluation.accuracy, evaluation.batch_stats)
        total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), total)
        total, values = jax.lax.scan(body, total, (*parts, jnp.arange(pieces)))
        gradient, accuracy, stats = jax.tree.map(lambda leaf: leaf / pieces, total)
        return Evaluation(values.swapaxes(0, 1).reshape(-1), accuracy, stats), gradient

    def grad(params, examples=None):
        some = () if examples is None else spread((images[examples], labels[examples]))
        return value_and_grad(params, *some)[1]

    def all_losses(params):
        return value_and_grad(params)[0].losses

    return Objective(value_and_grad, grad, all_losses)


def _pieces(count: int, size: int | None) -> int:
    """Into how many micro-batches of `size` the examples of a gradient are cut; one where they are no more than that."""
    if size is None or count <= size:
        return 1
    if count % size:
        raise errors.InputError(
            f'micro_batch_size must divide the {count} examples of a gradient (esam keeps a share gamma of those that share '
            f'a perturbation) or be at least {count}, got {size}'
        )
    return count // size


def check_sizes(
    batch_size: int, *, group_size: int | str | None, micro_batch_size: int | None, devices: int, gamma: float = 1.0
) -> None:
    """Checks how a batch is cut up.

    Args:
      batch_size: Examples in a step.
      group_size: Examples that share a perturbation; see `train_step`.
      micro_batch_size: Examples that pass through the network at once, or None.
      devices: Number of devices.
      gamma: Share of the examples that the minimizer keeps; see `optim.esam`.

    Raises:
      InputError: A size does not divide, or is out of its range.
    """
    if batch_size % devices:
        raise errors.InputError(f'batch_size {batch_size} does not divide over {devices} devices')
    whole = batch_size if group_size is None else batch_size // devices if group_size == 'device' else group_size
    if not _is_count(whole) or batch_size % whole:
        raise errors.InputError(
            f"group_size must be a divisor of batch_size {batch_size}, 'device' or None, got {group_size!r}"
        )
    if micro_batch_size is not None and (not _is_count(micro_batch_size) or whole % micro_batch_size):
        raise errors.InputError(
            f'micro_batch_size must divide the {whole} examples that share a perturbation, got {micro_batch_size!r}'
        )
    _pieces(optim.kept_examples(gamma, whole), micro_batch_size)


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= 1
