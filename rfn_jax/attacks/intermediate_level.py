"""ILA: an attack's direction in the features of a layer, followed further by another attack.

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

_SECOND = 0x1A5EC0D  # the purpose of the keys of the second attack; steps never have such numbers


@dataclasses.dataclass(frozen=True)
class IntermediateLevelAttack(attack.Attack):
    r"""Intermediate level attack (ILA): two attacks, one after the other.

    The first attack finds :math:`x'`; the second starts again from the originals :math:`x_0`, and maximizes the projection
    of the change of the features :math:`F` of a layer on the change that the first made,

    .. math:: \langle F(x) - F(x_0),\; F(x') - F(x_0) \rangle,

    in place of its own loss. Both together are compiled once for all surrogates of one architecture. The surrogate must be a
    `Classifier`, or another surrogate made of one, that is the same at every step.

    Attributes:
      first: The attack that gives the direction; the paper takes 10 steps of a baseline such as `bim`.
      second: The attack that follows it; the paper takes 10 more steps of `bim`. Its budget is that of the result.
      layer: Name of the layer, a direct submodule of the network (`hooks.layers` lists them); the paper's choice for a
        ResNet-18 is in the second and third of the four stages.
      name: Name of the attack, for messages.

    Raises:
      InputError: A part is not a `GradientAttack`, or is targeted, or `layer` is not a string.

    References:
      Huang et al., `Enhancing Adversarial Example Transferability with an Intermediate Level Attack
      <https://arxiv.org/abs/1907.10823>`_, 2019: its ILAP.
    """

    first: engine.GradientAttack
    second: engine.GradientAttack
    layer: str
    name: str = 'ila'

    targeted = False
    chunk_size = 1

    def __post_init__(self) -> None:
        for name in ('first', 'second'):
            part = getattr(self, name)
            if not isinstance(part, engine.GradientAttack) or part.targeted:
                got = f'attack {part.name!r}' if isinstance(part, engine.GradientAttack) else repr(part)
                raise errors.InputError(f'{name} of {self.name!r} must be a GradientAttack without targets, got {got}')
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
        """Gradients of networks for one example, in both attacks; those of the features count as whole ones."""
        return self.first.evaluations(surrogate) + self.second.evaluations(surrogate)

    def run(self, given: attack.Arguments) -> jax.Array:
        """The adversarial images `[B, H, W, C]`; both attacks, one after the other."""
        surrogate, images, labels, keys, _, pool = given
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
        return second(projection, images, labels, keys_lib.fold(keys, _SECOND), pool=pool)


@struct.dataclass
class FeatureProjection(attack.SteppedSurrogate):
    """A surrogate whose only logit is the projection of the features of a layer: `projection(images) -> [B, 1]`.

    Attributes:
      surrogate: The surrogate.
      base: Features of the originals, `[B, ...]`.
      guide: Features of the images that give the direction, `[B, ...]`.
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
        """Inner products `[B, 1]` of the features' distance from the base with that of the guide; sums over features."""
        del keys, step  # the features are the same at every step
        change = features(self.surrogate, images, self.layer) - self.base
        products = (change * (self.guide - self.base)).astype(jnp.float32)
        return jnp.sum(products.reshape(len(images), -1), axis=1, keepdims=True)


def features(surrogate: attack.Surrogate, images: jax.Array, layer: str) -> jax.Array:
    """The output `[B, ...]` of a layer of the network of a surrogate.

    Raises:
      InputError: The surrogate has no such layer, or several networks.
    """
    with hooks.outputs(layer) as found:
        surrogate(images)
    if len(found) != 1:
        raise errors.InputError(f'the features of layer {layer!r} need a surrogate of one network, got {len(found)}')
    return found[0]


def _projection(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The loss `[B]` of the second attack."""
    del labels
    return logits[:, 0]
