"""The loss of a set of examples as a function of the parameters, and its gradient, computed at once or in micro-batches.

Axes: `B` examples of the set, `b` examples of a micro-batch.
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


class ForwardResult(NamedTuple):
    """What a forward pass gives in addition to the gradient.

    Attributes:
      losses: Loss of each example, `[B]`.
      accuracy: Fraction of the examples that are predicted correctly; for labels that are probabilities, fraction of those
        whose predicted class is the one with the largest probability.
      batch_stats: Running statistics after the forward pass.
    """

    losses: jax.Array
    accuracy: jax.Array
    batch_stats: Any


class Objective(NamedTuple):
    """The mean loss of a set of examples.

    Attributes:
      value_and_grad: Function from parameters to `(ForwardResult, gradient)`.
      grad: Function from parameters to the gradient of the mean loss; optionally also takes positions int32 `[k]`, for the
        mean loss of only those examples.
      losses: Function from parameters to the losses `[B]`.
    """

    value_and_grad: Callable[[optax.Params], tuple[ForwardResult, optax.Updates]]
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
    label_smoothing: float = 0.0,
    micro_batch_size: int | None = None,
    rematerialize: bool = False,
    gather: Callable[[Any], Any] = lambda params: params,
    place: Callable[[Any], Any] = lambda examples: examples,
) -> Objective:
    """Returns the objective of a network on some examples, in training mode or in evaluation mode.

    In training mode batch normalization uses the statistics of the examples and dropout is on; in evaluation mode
    normalization uses the running statistics, dropout is off, and auxiliary heads do not count.

    The loss is the cross-entropy plus, for each auxiliary head of the network (`sow`n in `'auxiliary_logits'`), the
    cross-entropy of its logits times the `auxiliary_weight` of the module. Every evaluation of all examples draws dropout
    from the same key, so that a sharpness-aware minimizer compares gradients of one function; the gradient of only some of
    the examples (`optim.esam`) has its own masks.

    With micro-batches, the gradient is accumulated over them one after another, which bounds the memory. Batch normalization
    then sees one micro-batch at a time, and the running statistics are updated once, by the mean of the updates of all
    micro-batches.

    Args:
      module: Flax module.
      batch_stats: Running statistics before the forward pass.
      images: Normalized images `[B, H, W, C]`.
      labels: int32 `[B]`, or probabilities `[B, K]`.
      key: Key for dropout, needed by modules that use dropout in training mode; the number of each micro-batch is folded in.
      train: Whether to use training mode.
      label_smoothing: See `losses.cross_entropy`.
      micro_batch_size: b, which must divide the number of examples if it is smaller; None for no micro-batches. Micro-batch i
        holds the examples i, i + B/b, i + 2B/b, ..., so that every device has an equal share of each micro-batch if b is a
        multiple of the number of devices.
      rematerialize: Whether the backward pass computes normalizations and activations again instead of storing them, which
        saves memory; the results of convolutions and matrix products are stored in any case.
      gather: Function applied to the parameters before each evaluation; it sets their placement if they are sharded.
      place: Function applied to a subset of the examples before its gradient is computed; it sets their placement.

    Returns:
      The `Objective`. In training mode it uses the statistics of the examples for any parameters, and in evaluation mode it
      does not change the running statistics.

    Raises:
      InputError: At an evaluation, b does not divide the number of examples.
    """

    def forward(params, images, key):
        return module.apply(
            {'params': params, 'batch_stats': batch_stats},
            images,
            train=train,
            mutable=['batch_stats', 'auxiliary_logits'] if train else [],
            rngs={} if key is None else {'dropout': key},
        )

    if rematerialize:
        forward = jax.checkpoint(forward, policy=_is_product)

    def mean_loss(params, images, labels, key):
        logits, updated = forward(gather(params), images, key)
        values = losses.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        for auxiliary in jax.tree.leaves(updated.get('auxiliary_logits', {})):
            values += module.auxiliary_weight * losses.cross_entropy(auxiliary, labels, label_smoothing=label_smoothing)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == losses.most_likely(labels))
        return jnp.mean(values), ForwardResult(values, accuracy, updated.get('batch_stats', {}))

    def value_and_grad(params, images=images, labels=labels):
        result, gradient = accumulate(params, images, labels)
        return result if train else result._replace(batch_stats=batch_stats), gradient

    def accumulate(params, images, labels):
        gradient_of = jax.value_and_grad(mean_loss, has_aux=True)
        count = _num_micro_batches(len(labels), micro_batch_size)
        if count == 1:
            (_, result), gradient = gradient_of(params, images, labels, key)
            return result, gradient

        def body(total, micro_batch):
            *examples, number = micro_batch
            (_, result), gradient = gradient_of(
                params, *examples, None if key is None else jax.random.fold_in(key, number)
            )
            summands = (gradient, result.accuracy, result.batch_stats)
            return jax.tree.map(jnp.add, total, summands), result.losses

        micro_batches = [x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1) for x in (images, labels)]
        shapes = jax.eval_shape(gradient_of, params, *(x[0] for x in micro_batches), key)
        (_, result), gradient = shapes
        total = (gradient, result.accuracy, result.batch_stats)
        total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), total)
        total, values = jax.lax.scan(body, total, (*micro_batches, jnp.arange(count)))
        gradient, accuracy, stats = jax.tree.map(lambda leaf: leaf / count, total)
        return ForwardResult(values.swapaxes(0, 1).reshape(-1), accuracy, stats), gradient

    def grad(params, examples=None):
        subset = () if examples is None else place((images[examples], labels[examples]))
        return value_and_grad(params, *subset)[1]

    def all_losses(params):
        return value_and_grad(params)[0].losses

    return Objective(value_and_grad, grad, all_losses)


def _is_product(primitive, *_, **__) -> bool:
    """Whether an operation is costly enough that its result is stored for the backward pass."""
    return primitive.name in ('conv_general_dilated', 'dot_general')


def _num_micro_batches(count: int, size: int | None) -> int:
    """Returns how many micro-batches of `size` the `count` examples of a gradient fill; one if `count` is at most `size`."""
    if size is None or count <= size:
        return 1
    if count % size:
        raise errors.InputError(
            f'micro_batch_size must divide the {count} examples of a gradient (esam keeps a fraction gamma of those that '
            f'share a perturbation) or be at least {count}, got {size}'
        )
    return count // size


def check_sizes(
    batch_size: int, *, group_size: int | str | None, micro_batch_size: int | None, devices: int, gamma: float = 1.0
) -> None:
    """Checks how a batch is divided.

    Args:
      batch_size: Number of examples in a step.
      group_size: Number of examples that share a perturbation; see `train_step`.
      micro_batch_size: Number of examples that pass through the network at once, or None.
      devices: Number of devices.
      gamma: Fraction of the examples that the minimizer keeps; see `optim.esam`.

    Raises:
      InputError: A size is not a divisor where it must be one, or is out of range.
    """
    if batch_size % devices:
        raise errors.InputError(f'batch_size {batch_size} does not divide evenly over {devices} devices')
    sharing = batch_size if group_size is None else batch_size // devices if group_size == 'device' else group_size
    if not _is_count(sharing) or batch_size % sharing:
        raise errors.InputError(
            f"group_size must be a divisor of batch_size {batch_size}, 'device' or None, got {group_size!r}"
        )
    if micro_batch_size is not None and (not _is_count(micro_batch_size) or sharing % micro_batch_size):
        raise errors.InputError(
            f'micro_batch_size must divide the {sharing} examples that share a perturbation, got {micro_batch_size!r}'
        )
    _num_micro_batches(optim.kept_examples(gamma, sharing), micro_batch_size)


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= 1
