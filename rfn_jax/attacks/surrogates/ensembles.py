"""Surrogates made of several networks: all of them at every step, or one checkpoint per step (LGV).

Axes: `B` examples, `H W` rows and columns, `C` channels, `K` classes, `M` members.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rfn_jax.attacks import attack
from rfn_jax.attacks import keys as keys_lib
from rfn_jax.core import checks, errors
from rfn_jax.models import classifier as classifier_lib

FUSIONS = ('logits', 'probabilities', 'losses')


@struct.dataclass
class Ensemble(attack.SteppedSurrogate):
    r"""Several surrogates with the same classes, combined into one: `ensemble(images)`.

    .. math:: z = \frac1M \sum_m z_m \;\text{(logits)}, \qquad
       z = \log \frac1M \sum_m \mathrm{softmax}(z_m) \;\text{(probabilities)}, \qquad
       z = (z_1, \dots, z_M) \;\text{(losses)}

    The members are computed one after another, even if they have the same architecture.

    Attributes:
      members: Classifiers, or any surrogates that are pytrees, with the same or different architectures; at least one.
      fuse: What is averaged: `'logits'`, as in the ensembles of Dong et al.; `'probabilities'`, as in those of Liu et al.;
        or `'losses'`, which are averaged by the attack, for which the ensemble returns logits `[M, B, K]`.

    Raises:
      InputError: There are no members, `fuse` is unknown, or the members differ in the number of classes.

    References:
      Liu et al., `Delving into Transferable Adversarial Examples and Black-box Attacks
      <https://arxiv.org/abs/1611.02770>`_, 2017. Dong et al., `Boosting Adversarial Attacks with Momentum
      <https://arxiv.org/abs/1710.06081>`_, 2018.
    """

    members: Sequence[attack.Surrogate]
    fuse: str = struct.field(pytree_node=False, default='logits')

    def __post_init__(self) -> None:
        checks.one_of('way to fuse an ensemble', self.fuse, FUSIONS)
        if isinstance(self.members, classifier_lib.Classifier) or callable(self.members):
            raise errors.InputError('members of an ensemble must be a tuple of surrogates, got one surrogate')
        if isinstance(self.members, list):
            object.__setattr__(self, 'members', tuple(self.members))
        if isinstance(self.members, tuple):  # jax also creates ensembles whose members are other objects
            if not self.members:
                raise errors.InputError('an ensemble needs at least one member, got none')
            _check_classes([m.num_classes for m in self.members if isinstance(m, classifier_lib.Classifier)])

    def inner(self) -> tuple[attack.Surrogate, ...]:
        """The members."""
        return tuple(self.members)

    def at_step(self, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
        """Returns logits `[B, K]`, or `[M, B, K]` to fuse losses; each member that varies gets its own keys."""
        member_logits = []
        for index, member in enumerate(self.members):
            member_keys = keys_lib.fold(keys, index) if attack.varies(member) else keys
            member_logits.append(attack.logits(member, images, member_keys, step))
        shapes = [z.shape for z in member_logits]
        if any(len(shape) != 2 for shape in shapes):
            raise errors.InputError(f'members of an ensemble must return logits [B, K], got shapes {shapes}')
        _check_classes([shape[-1] for shape in shapes])
        logits = jnp.stack(member_logits)
        if self.fuse == 'logits':
            return jnp.mean(logits, axis=0)
        if self.fuse == 'probabilities':
            log_sum = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0)
            log_mean: jax.Array = log_sum - np.log(len(self.members)).astype(logits.dtype)
            return log_mean
        return logits


def _check_classes(counts: Sequence[int]) -> None:
    if len(set(counts)) > 1:
        raise errors.InputError(
            f'members of an ensemble must have the same classes, got {", ".join(map(str, counts))} classes'
        )


@struct.dataclass
class CheckpointCycle(attack.SteppedSurrogate):
    """Checkpoints of one architecture, one for each step; see `checkpoint_cycle`.

    Attributes:
      stacked: A classifier whose variables are those of all checkpoints, stacked along a new first axis.
      order: Numbers of the checkpoints in the order in which they are used, int32.
    """

    stacked: classifier_lib.Classifier
    order: jax.Array

    varies = True

    def inner(self) -> tuple[attack.Surrogate, ...]:
        """The checkpoints as one classifier, since only one of them is called at a time."""
        return (self.stacked,)

    def at_step(self, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
        """Returns the logits `[B, K]` of the checkpoint `order[step % n]`; nothing is drawn from the keys."""
        del keys
        index = self.order[step % len(self.order)]
        take = functools.partial(jax.lax.dynamic_index_in_dim, index=index, keepdims=False)
        checkpoint: classifier_lib.Classifier = jax.tree.map(take, self.stacked)
        return checkpoint(images)


def checkpoint_cycle(classifiers: Sequence[classifier_lib.Classifier], *, seed: int = 0) -> CheckpointCycle:
    r"""Makes a surrogate that uses a different checkpoint at each step, as in LGV.

    .. math:: z_t(x) = f_{\theta_{\pi(t \bmod n)}}(x)

    with a random order :math:`\pi` that is drawn once. An attack with fewer steps than checkpoints does not use all of them.

    Args:
      classifiers: Checkpoints of one architecture, at least one. LGV uses 40, from training with a high constant learning
        rate.
      seed: Seed of the order, at least 0.

    Returns:
      A pytree that holds copies of all checkpoints. An attack on it is compiled once for all cycles with the same
      architecture and number of checkpoints.

    Raises:
      InputError: There are no checkpoints, one is not a `Classifier` or has a different architecture, or `seed` is out of
        range.

    References:
      Gubri et al., `LGV: Boosting Adversarial Example Transferability from Large Geometric Vicinity
      <https://arxiv.org/abs/2207.13129>`_, 2022.
    """
    seed = checks.integer('seed of a cycle of checkpoints', seed, at_least=0)
    classifiers = tuple(classifiers)
    if not classifiers:
        raise errors.InputError('a cycle of checkpoints needs at least one, got none')

    def signature(classifier: classifier_lib.Classifier) -> tuple[Any, list[tuple[tuple[int, ...], jnp.dtype]]]:
        leaves, structure = jax.tree.flatten(classifier)
        return structure, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]

    for index, classifier in enumerate(classifiers):
        if not isinstance(classifier, classifier_lib.Classifier):
            raise errors.InputError(
                f'checkpoint {index} of a cycle is not a Classifier but a {type(classifier).__name__}'
            )
        if signature(classifier) != signature(classifiers[0]):
            raise errors.InputError(f'checkpoint {index} of a cycle differs from checkpoint 0 in architecture')
    order = np.random.default_rng(seed).permutation(len(classifiers)).astype(np.int32)
    return CheckpointCycle(jax.tree.map(lambda *leaves: jnp.stack(leaves), *classifiers), jnp.asarray(order))
