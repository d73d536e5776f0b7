"""ILA: one attack finds a direction in the features of a layer, and a second attack follows it further.

Axes: `B` examples, `H W` rows and columns, `C` channels.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from rfn_jax.attacks import attack, budget, engine
from rfn_jax.attacks import keys as keys_lib
from rfn_jax.core import checks, errors
from rfn_jax.models import hooks

_SECOND_ATTACK = 0x1A5EC0D  # folded into the keys of the second attack; no step has such a number


@dataclasses.dataclass(frozen=True)
class IntermediateLevelAttack(attack.Attack):
    r"""Intermediate level attack (ILA): two attacks in succession.

    The first attack finds :math:`x'`. The second starts again from the originals :math:`x_0`; instead of its own loss, it
    maximizes the projection of the change of the features :math:`F` of a layer onto the change made by the first attack,

    .. math:: \langle F(x) - F(x_0),\; F(x') - F(x_0) \rangle.

    Both attacks are compiled together, once for all surrogates of the same architecture. The surrogate must be a
    `Classifier`, or a surrogate made of one, and must be the same at every step.

    Attributes:
      first: The attack that finds the direction; the paper uses 10 steps of a baseline such as `bim`.
      second: The attack that follows the direction; the paper uses 10 more steps of `bim`. Its budget is that of the result.
      layer: Name of the layer, a direct submodule of the network (`hooks.layers` lists them). For a ResNet-18, the paper
        chooses layers in the second and third of the four stages.
      name: Name of the attack, for messages.

    Raises:
      InputError: One of the attacks is not a `GradientAttack`, or is targeted, or `layer` is not a string.

    References:
      Huang et al., `Enhancing Adversarial Example Transferability with an Intermediate Level Attack
      <https://arxiv.org/abs/1907.10823>`_, 2019; this is their ILAP.
    """

    first: engine.GradientAttack
    second: engine.GradientAttack
    layer: str
    name: str = 'ila'

    targeted = False
    chunk_size = 1

    def __post_init__(self) -> None:
        for name in ('first', 'second'):
            stage = getattr(self, name)
            if not isinstance(stage, engine.GradientAttack) or stage.targeted:
                got = f'attack {stage.name!r}' if isinstance(stage, engine.GradientAttack) else repr(stage)
                raise errors.InputError(f'{name} of {self.name!r} must be an untargeted GradientAttack, got {got}')
        checks.string(f'layer of {self.name!r}', self.layer, 'the name of a layer')

    @property
    def limits(self) -> budget.Budget:
        """The budget of the second attack."""
        return self.second.limits

    @property
    def needs_pool(self) -> bool:
        """Whether the attack must be called with a pool of images to mix in."""
        return self.first.needs_pool or self.second.needs_pool

    def evaluations(self, surrogate: attack.Surrogate) -> int:
        """Number of network gradients per example, in both attacks; a gradient of the features counts as a whole one."""
        return self.first.evaluations(surrogate) + self.second.evaluations(surrogate)

    def run(self, arguments: attack.Arguments) -> jax.Array:
        """Returns the adversarial images `[B, H, W, C]`; runs both attacks in succession."""
        surrogate, images, labels, keys, _, pool = arguments
        attack.check_hooks(surrogate, f'attack {self.name!r}')
        if attack.varies(surrogate):
            raise errors.InputError(
                f'attack {self.name!r} needs a surrogate with the same features at every step, got a '
                f'{type(surrogate).__name__}'
            )
        reference = self.first(surrogate, images, labels, keys, pool=pool)
        base, guide = (features(surrogate, x, self.layer) for x in (images, reference))
        second = dataclasses.replace(self.second, loss=_projection)
        projection = FeatureProjection(surrogate, base, guide, self.layer)
        return second(projection, images, labels, keys_lib.fold(keys, _SECOND_ATTACK), pool=pool)


@struct.dataclass
class FeatureProjection(attack.SteppedSurrogate):
    """A surrogate whose only logit is the projection of a layer's features onto a direction: `projection(images) -> [B, 1]`.

    Attributes:
      surrogate: The surrogate.
      base: Features of the originals, `[B, ...]`.
      guide: Features of the images that define the direction, `[B, ...]`.
      layer: Name of the layer.
    """

    surrogate: attack.Surrogate
    base: jax.Array
    guide: jax.Array
    layer: str = struct.field(pytree_node=False)

    def inner(self) -> tuple[attack.Surrogate, ...]:
        """The surrogate."""
        return (self.surrogate,)

    def at_step(self, images: jax.Array, keys: jax.Array, step: jax.Array | int) -> jax.Array:
        """Returns the inner products `[B, 1]` of `features - base` and `guide - base`, summed over all features."""
        del keys, step  # the features are the same at every step
        change = features(self.surrogate, images, self.layer) - self.base
        products = (change * (self.guide - self.base)).astype(jnp.float32)
        return jnp.sum(products.reshape(len(images), -1), axis=1, keepdims=True)


def features(surrogate: attack.Surrogate, images: jax.Array, layer: str) -> jax.Array:
    """Returns the output `[B, ...]` of a layer of the network in a surrogate.

    Raises:
      InputError: The surrogate has no such layer, or contains several networks.
    """
    with hooks.outputs(layer) as recorded:
        surrogate(images)
    if len(recorded) != 1:
        raise errors.InputError(
            f'the features of layer {layer!r} need a surrogate with one network, got {len(recorded)}'
        )
    return recorded[0]


def _projection(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The loss `[B]` of the second attack."""
    del labels
    return logits[:, 0]
